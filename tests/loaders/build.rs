//! Builds the debug object, which logs, for the test that reads a line of it. Everything that
//! `balancer-user/build.rs` says about toolchains and variables holds here too.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "../../balancer-user/build/object.rs"]
mod object;
#[path = "../../balancer-user/build/toolchain.rs"]
mod toolchain;
use object::Object;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
    for key in [toolchain::TOOLCHAIN, SKIP, "PATH", "HOME", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={key}");
    }
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    for path in ["balancer-ebpf/src", "balancer-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let file = out.join("debug.o");
    if env::var_os(SKIP).is_some_and(|v| v != "0" && !v.is_empty()) {
        fs::write(&file, [])?;
        return Ok(());
    }
    let built = Object {
        root: &root,
        bin: object::DATAPATH,
        logs: true,
        target: "bpfel-unknown-none",
        arch: &env::var("CARGO_CFG_TARGET_ARCH")?,
        target_dir: &out.join("bpf"),
    }
    .build()?;
    println!("cargo::rerun-if-changed={}", built.linker.display());
    fs::copy(&built.file, &file)
        .map_err(|e| format!("cannot copy the object {}: {e}", built.file.display()))?;
    Ok(())
}
