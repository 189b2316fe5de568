//! Finds what the eBPF object is built with: a toolchain, and a bpf-linker that can read what
//! this toolchain's LLVM writes. Shared by `build.rs`, which uses them, and by
//! `cargo xtask setup`, which installs what is missing: so both agree on what counts as there.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Names a directory with the `cargo` and `rustc` to use.
pub(crate) const TOOLCHAIN: &str = "BALANCER_EBPF_TOOLCHAIN";
/// Set by the outer cargo or rustup for its own build. They would choose the wrong compiler,
/// flags, profile or lock for the inner one.
const OUTER: &[&str] =
    &["CARGO", "RUSTC", "TARGET", "HOST", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];
const OUTER_PREFIXES: &[&str] = &["CARGO_", "RUSTC_", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
/// Of these prefixes, what says where crates are kept and how many jobs may run.
const KEPT_PREFIXES: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS"];
/// And what says where crates come from.
pub(crate) const CRATE_SOURCES: &[&str] =
    &["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// A command free of what belongs to the outer build.
pub(crate) fn inner(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
        let kept = starts(KEPT_PREFIXES) || starts(CRATE_SOURCES);
        if OUTER.contains(&&*name) || starts(OUTER_PREFIXES) && !kept {
            command.env_remove(&key);
        }
    }
    command
}

/// A toolchain that can build for the target.
pub(crate) struct Toolchain {
    /// The binary, not rustup's proxy.
    pub(crate) cargo: PathBuf,
    /// The binary, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// Where its libraries are.
    pub(crate) sysroot: PathBuf,
    /// Major version of the LLVM in rustc.
    pub(crate) llvm: u32,
    /// `core` is there as source only.
    pub(crate) core_from_source: bool,
}

impl Toolchain {
    /// The first that fits, in the order that `build.rs` documents; else why none does.
    pub(crate) fn find(target: &str) -> Result<Self> {
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
    // Cargo sets RUSTC for build scripts and CARGO for whatever it runs.
    let rustc = env::var_os("RUSTC").map(PathBuf::from);
    let rustc = rustc.or_else(|| Some(Path::new(&env::var_os("CARGO")?).with_file_name("rustc")));
    let rustc = rustc.ok_or("neither RUSTC nor CARGO is set: cargo does not run this")?;
    Ok(PathBuf::from(ask(Command::new(rustc).args(["--print", "sysroot"]))?).join("bin"))
}

/// bpf-linker on PATH, else one that `cargo xtask setup` left in the cache. It must read this
/// rustc's bitcode, so its LLVM may not be older; the cache's directories name it.
pub(crate) fn find_linker(llvm: u32) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        env::split_paths(&path).map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())
    {
        return Ok(found);
    }
    let cache = cache()?;
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

/// Where `cargo xtask setup` leaves what it builds: `bpf-linker-VERSION-llvmMAJOR/`.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
    Ok(cache.ok_or("no home directory, so no cache for bpf-linker")?.join("balancer"))
}
