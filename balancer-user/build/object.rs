//! Builds one eBPF object. Shared by `build.rs`, which builds the one that balancer carries, by
//! `cargo xtask bench packet`, which builds the driver that measures it, and by those who build
//! the debug object, which logs (`cargo xtask bpf --debug`, the tests in `tests/loaders`).

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

use super::toolchain::{Toolchain, find_linker, inner};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The binary with the programs that carry out policies.
pub(crate) const DATAPATH: &str = "datapath";

/// The package whose binaries are objects.
const PACKAGE: &str = "balancer-ebpf";

/// What to build.
pub(crate) struct Object<'a> {
    /// The workspace's directory.
    pub(crate) root: &'a Path,
    /// The binary of [`PACKAGE`].
    pub(crate) bin: &'a str,
    /// Whether it is to log (aya-log), which makes it larger and closed to libbpf.
    pub(crate) logs: bool,
    /// The Rust target.
    pub(crate) target: &'a str,
    /// The machine that the object will run on, as Rust names it.
    pub(crate) arch: &'a str,
    /// The inner cargo's target directory.
    pub(crate) target_dir: &'a Path,
}

/// What came of it.
pub(crate) struct Built {
    /// The object.
    pub(crate) file: PathBuf,
    /// The bpf-linker that made it.
    pub(crate) linker: PathBuf,
}

impl Object<'_> {
    /// Runs a second cargo.
    pub(crate) fn build(&self) -> Result<Built> {
        let toolchain = Toolchain::find(self.target)?;
        let linker = find_linker(toolchain.llvm)?;

        let mut cargo = inner(&toolchain.cargo);
        cargo.current_dir(self.root).args(["build", "--release", "--locked"]);
        cargo.args(["--package", PACKAGE, "--bin", self.bin]);
        cargo.args(["--features", if self.logs { "log" } else { "programs" }]);
        cargo.args(["--target", self.target, "--target-dir"]).arg(self.target_dir);
        if toolchain.core_from_source {
            cargo.args(["-Z", "build-std=core"]);
        }
        let linker_key =
            format!("CARGO_TARGET_{}_LINKER", self.target.to_uppercase().replace('-', "_"));
        let output = cargo
            .env("RUSTC", &toolchain.rustc)
            // aya-ebpf uses inline assembly for BPF, which is unstable. For this build only.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(&toolchain))
            .env(linker_key, &linker)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", toolchain.cargo.display()))?;
        if !output.status.success() {
            return Err(format!(
                "the eBPF object {} does not build with {} and {} ({}):\n{}\n\
                 hint: if the linker cannot read its input, its LLVM is older than LLVM {} of \
                 this rustc; `cargo xtask setup` builds one that fits",
                self.bin,
                toolchain.rustc.display(),
                linker.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr),
                toolchain.llvm,
            )
            .into());
        }
        let file = self.target_dir.join(self.target).join("release").join(self.bin);
        Ok(Built { file, linker })
    }

    /// The inner RUSTFLAGS, separated as cargo wants them.
    fn flags(&self, toolchain: &Toolchain) -> String {
        let mut flags = vec![
            // BTF and line info, which the verifier's log and bpftool show, come from debug info.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // The instruction set of Linux 5.12: 32-bit jumps and atomics that return what was
            // there.
            "-Ctarget-cpu=v3".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch),
        ];
        // Line info holds source paths; without this the object would differ from machine to
        // machine.
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")));
        let prefixes = [
            cargo_home.map(|home| (home, "/cargo")),
            Some((toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust")),
            Some((self.root.to_path_buf(), "/balancer")),
        ];
        for (from, to) in prefixes.into_iter().flatten() {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        }
        flags.join("\u{1f}")
    }
}
