//! `cargo xtask bpf`: the eBPF object by itself.

mod figures;
pub(crate) mod stats;

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, anyhow};

use crate::{
    run,
    setup::{
        self,
        object::{self, Object},
    },
};

/// Bytes of one BPF instruction (a 64-bit immediate takes two).
const INSTRUCTION_BYTES: u64 = 8;

pub(crate) fn run(dump: bool, debug: bool) -> Result<()> {
    setup::run(setup::Talk::Short, &[setup::Group::Build])?;
    let object = if debug { build_debug()? } else { build()? };
    let bytes = std::fs::metadata(&object)?.len();
    println!("{} ({bytes} bytes)", object.display());
    for (name, size) in functions(&object)? {
        println!("{:>8} instructions  {name}", size / INSTRUCTION_BYTES);
    }
    if dump {
        let disassembler = run::program("llvm-objdump")
            .context("no llvm-objdump to disassemble with; on Debian: apt-get install llvm")?;
        run::run(
            Command::new(disassembler)
                .args(["--disassemble", "--line-numbers", "--no-show-raw-insn"])
                .arg(&object),
        )?;
    }
    Ok(())
}

/// Lets cargo build it and asks where the build script's output went.
fn build() -> Result<PathBuf> {
    let mut cargo =
        run::cargo(&["build", "--package", "balancer-user", "--lib", "--message-format", "json"]);
    eprintln!("$ {}", run::shown(&cargo));
    let messages = run::ask(&mut cargo)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "build-script-executed")
        .filter(|m| m["package_id"].as_str().is_some_and(|id| id.contains("balancer-user")))
        .find_map(|message| Some(PathBuf::from(message["out_dir"].as_str()?).join("datapath.o")))
        .context("cargo did not say where the object is")
}

/// Builds the debug object, which balancer does not carry.
fn build_debug() -> Result<PathBuf> {
    let object = Object {
        root: run::root(),
        bin: object::DATAPATH,
        logs: true,
        target: setup::TARGET,
        arch: std::env::consts::ARCH,
        target_dir: &run::root().join("target").join("bpf-debug"),
    };
    Ok(object.build().map_err(|e| anyhow!("{e}"))?.file)
}

/// Name and size in bytes of each function.
fn functions(object: &std::path::Path) -> Result<Vec<(String, u64)>> {
    let symbols = run::ask(Command::new("readelf").args(["--wide", "--symbols"]).arg(object))?;
    Ok(symbols
        .lines()
        // `Num: Value Size Type Bind Vis Ndx Name`
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(3) == Some(&"FUNC"))
        .filter_map(|words| Some(((*words.get(7)?).to_owned(), words[2].parse().ok()?)))
        .collect())
}
