//! Builds the eBPF object and leaves it in `OUT_DIR`, where `kernel::object` embeds it.
//!
//! The object needs another target, other flags and sometimes another toolchain than user
//! space, so a second cargo builds it. Anything below will do; the first that fits is taken:
//!
//! 1. `BALANCER_EBPF_OBJECT=FILE`: an object built before; nothing is compiled.
//! 2. `BALANCER_EBPF_TOOLCHAIN=DIR`: the `cargo` and `rustc` in `DIR`.
//! 3. rustup's `nightly`, with the component `rust-src`.
//! 4. `/usr/bin`: Debian's rustc-web, cargo-web and libstd-rust-web-dev-bpf.
//! 5. The toolchain that runs this build, with `rust-src`.
//!
//! A toolchain fits when it has `core` for the target, compiled or as source.
//! `BALANCER_EBPF_SKIP=1` (editors, lints, tests that need no kernel) leaves an empty stand-in,
//! which `kernel::object` refuses to open.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "build/toolchain.rs"]
mod toolchain;
use toolchain::{TOOLCHAIN, Toolchain, find_linker, inner};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OBJECT: &str = "BALANCER_EBPF_OBJECT";
const SKIP: &str = "BALANCER_EBPF_SKIP";
/// Package and binary of the object.
const PACKAGE: &str = "balancer-ebpf";
const BIN: &str = "datapath";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    for key in [OBJECT, TOOLCHAIN, SKIP, "PATH", "HOME", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={key}");
    }
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .parent()
        .ok_or("balancer-user lies in no workspace")?
        .to_path_buf();
    for path in ["balancer-ebpf/src", "balancer-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?).join("datapath.o");
    if env::var_os(SKIP).is_some_and(|v| v != "0" && !v.is_empty()) {
        fs::write(&out, [])?;
        return Ok(());
    }
    let built = match env::var_os(OBJECT).map(PathBuf::from) {
        Some(prebuilt) => {
            println!("cargo::rerun-if-changed={}", prebuilt.display());
            prebuilt
        }
        None => compile(&root)?,
    };
    fs::copy(&built, &out)
        .map_err(|e| format!("cannot copy the object {}: {e}", built.display()))?;
    Ok(())
}

/// Builds the object and returns its path.
fn compile(root: &Path) -> Result<PathBuf> {
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let toolchain = Toolchain::find(target)?;
    let linker = find_linker(toolchain.llvm)?;
    println!("cargo::rerun-if-changed={}", linker.display());
    // Cargo holds a lock on the outer target directory.
    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("bpf");

    let mut cargo = inner(&toolchain.cargo);
    cargo.current_dir(root).args(["build", "--release", "--locked", "--package", PACKAGE]);
    cargo.args(["--bin", BIN, "--features", "programs", "--target", target, "--target-dir"]);
    cargo.arg(&target_dir);
    if toolchain.core_from_source {
        cargo.args(["-Z", "build-std=core"]);
    }
    let linker_key = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    let output = cargo
        .env("RUSTC", &toolchain.rustc)
        // aya-ebpf uses inline assembly for BPF, which is unstable. For this build only.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, &toolchain)?)
        .env(linker_key, &linker)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", toolchain.cargo.display()))?;
    if !output.status.success() {
        return Err(format!(
            "the eBPF object does not build with {} and {} ({}):\n{}\n\
             hint: if the linker cannot read its input, its LLVM is older than LLVM {} of this \
             rustc; `cargo xtask setup` builds one that fits",
            toolchain.rustc.display(),
            linker.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            toolchain.llvm,
        )
        .into());
    }
    Ok(target_dir.join(target).join("release").join(BIN))
}

/// The inner RUSTFLAGS, separated as cargo wants them.
fn flags(root: &Path, toolchain: &Toolchain) -> Result<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut flags = vec![
        // BTF and line info, which the verifier's log and bpftool show, come from debug info.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // The instruction set of Linux 5.12: 32-bit jumps and atomics that return what was there.
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    // Line info holds source paths; without this the object would differ from machine to machine.
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let prefixes = [
        cargo_home.map(|home| (home, "/cargo")),
        Some((toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust")),
        Some((root.to_path_buf(), "/balancer")),
    ];
    for (from, to) in prefixes.into_iter().flatten() {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags.join("\u{1f}"))
}
