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

#[path = "build/object.rs"]
mod object;
#[path = "build/toolchain.rs"]
mod toolchain;
use object::Object;
use toolchain::TOOLCHAIN;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OBJECT: &str = "BALANCER_EBPF_OBJECT";
const SKIP: &str = "BALANCER_EBPF_SKIP";

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
    // Relative to this package, so that a copy of the target directory watches the sources that
    // it lies beside, not those that it was made from.
    for path in ["balancer-ebpf/src", "balancer-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=../{path}");
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
    let object = Object {
        root,
        bin: object::DATAPATH,
        logs: false,
        target,
        arch: &env::var("CARGO_CFG_TARGET_ARCH")?,
        // Cargo holds a lock on the outer target directory.
        target_dir: &PathBuf::from(env::var("OUT_DIR")?).join("bpf"),
    };
    let built = object.build()?;
    println!("cargo::rerun-if-changed={}", built.linker.display());
    Ok(built.file)
}
