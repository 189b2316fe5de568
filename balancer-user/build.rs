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
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OBJECT: &str = "BALANCER_EBPF_OBJECT";
const TOOLCHAIN: &str = "BALANCER_EBPF_TOOLCHAIN";
const SKIP: &str = "BALANCER_EBPF_SKIP";
/// Package and binary of the object.
const PACKAGE: &str = "balancer-ebpf";
const BIN: &str = "datapath";
/// Set by the outer cargo or rustup for its own build. They would choose the wrong compiler,
/// flags, profile or lock for the inner one.
const OUTER: &[&str] =
    &["CARGO", "RUSTC", "TARGET", "HOST", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];
const OUTER_PREFIXES: &[&str] = &["CARGO_", "RUSTC_", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
/// Of these prefixes, what says where crates come from and how many jobs may run.
const KEPT_PREFIXES: &[&str] = &[
    "CARGO_HOME",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
];

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

/// A command free of what belongs to the outer build.
fn inner(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
        if OUTER.contains(&&*name) || starts(OUTER_PREFIXES) && !starts(KEPT_PREFIXES) {
            command.env_remove(&key);
        }
    }
    command
}

struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    /// Major version of the LLVM in rustc.
    llvm: u32,
    core_from_source: bool,
}

impl Toolchain {
    fn find(target: &str) -> Result<Self> {
        if let Some(dir) = env::var_os(TOOLCHAIN).map(PathBuf::from) {
            return Self::inspect(&dir, target)
                .map_err(|why| format!("{TOOLCHAIN}={}: {why}", dir.display()).into());
        }
        let candidates = [
            ("rustup's nightly", rustup_bin("nightly")),
            ("/usr/bin", Ok(PathBuf::from("/usr/bin"))),
            ("the running toolchain", running_bin()),
        ];
        let mut missing = String::new();
        for (name, bin) in candidates {
            match bin.and_then(|bin| Self::inspect(&bin, target)) {
                Ok(toolchain) => return Ok(toolchain),
                Err(why) => writeln!(missing, "  {name}: {why}")?,
            }
        }
        Err(format!(
            "no Rust toolchain here can build the eBPF object for {target}:\n{missing}\
             run `cargo xtask setup`; or `rustup toolchain install nightly --component rust-src`; \
             or, on Debian, `apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf`"
        )
        .into())
    }

    /// Looks whether the `rustc` and `cargo` in `bin` can build for `target`; else says why not.
    fn inspect(bin: &Path, target: &str) -> std::result::Result<Self, String> {
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        for file in [&rustc, &cargo] {
            if !file.exists() {
                return Err(format!("no {}", file.display()));
            }
        }
        let sysroot = PathBuf::from(ask(inner(&rustc).args(["--print", "sysroot"]))?);
        let version = ask(inner(&rustc).arg("-vV"))?;
        let llvm = version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
            .ok_or_else(|| format!("{} -vV names no LLVM", rustc.display()))?;
        let compiled = sysroot.join("lib/rustlib").join(target).join("lib");
        let has_core = fs::read_dir(&compiled).is_ok_and(|files| {
            files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        });
        if !has_core && !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
            return Err(format!(
                "{} has neither core for {target} nor rust-src",
                sysroot.display()
            ));
        }
        Ok(Self { cargo, rustc, sysroot, llvm, core_from_source: !has_core })
    }
}

/// Output of a command that must succeed, without the line end.
fn ask(command: &mut Command) -> std::result::Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout)
        .map(|text| text.trim_end().to_owned())
        .map_err(|_| format!("{shown}: output is not UTF-8"))
}

/// Where rustup keeps this toolchain's binaries. Its proxies would obey the outer toolchain's
/// variables and could begin to install something.
fn rustup_bin(toolchain: &str) -> std::result::Result<PathBuf, String> {
    let mut rustup = inner(Path::new("rustup"));
    rustup.args(["which", "--toolchain", toolchain, "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    let rustc = PathBuf::from(ask(&mut rustup)?);
    rustc.parent().map(Path::to_path_buf).ok_or_else(|| "rustup gave no path".to_owned())
}

fn running_bin() -> std::result::Result<PathBuf, String> {
    let rustc = env::var_os("RUSTC").ok_or("RUSTC is not set")?;
    Ok(PathBuf::from(ask(Command::new(rustc).args(["--print", "sysroot"]))?).join("bin"))
}

/// bpf-linker on PATH, else one that `cargo xtask setup` left in the cache. It must read this
/// rustc's bitcode, so its LLVM may not be older; the cache's directories name it.
fn find_linker(llvm: u32) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        env::split_paths(&path).map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())
    {
        return Ok(found);
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
    let cache = cache.ok_or("no home directory, so no cache to look for bpf-linker in")?;
    let cache = cache.join("balancer");
    let mut fitting: Vec<(u32, PathBuf)> = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (_, its_llvm) = name.to_str()?.strip_prefix("bpf-linker-")?.rsplit_once("-llvm")?;
            let file = entry.path().join("bin/bpf-linker");
            Some((its_llvm.parse().ok()?, file))
        })
        .filter(|(its_llvm, file)| *its_llvm >= llvm && file.is_file())
        .collect();
    fitting.sort();
    fitting.into_iter().next().map(|(_, file)| file).ok_or_else(|| {
        format!(
            "no bpf-linker on PATH, and none for LLVM {llvm} in {}: run `cargo xtask setup`, which \
             builds it there",
            cache.display()
        )
        .into()
    })
}
