//! Prints the lines of a running debug object, until it is interrupted:
//! `cargo run --package balancer-loaders --example follow -- PIN-DIRECTORY`.

use std::{env, io::Write as _, os::fd::AsFd as _, path::PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::SchedClassifier;
use aya_log::EbpfLogger;
use balancer_ebpf::abi::program_names;
use log::{Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

struct Stdout;

impl Log for Stdout {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let mut out = std::io::stdout();
        // As other programs do when nobody reads on.
        if writeln!(out, "{:5} {}", record.level(), record.args()).is_err() {
            std::process::exit(0);
        }
    }
    fn flush(&self) {}
}

fn main() -> Result<()> {
    let pins = env::args_os().nth(1).context("usage: follow PIN-DIRECTORY (balancer's --bpffs)")?;
    let path = PathBuf::from(pins).join("progs").join(program_names::INGRESS);
    let program = SchedClassifier::from_pin(&path)
        .with_context(|| format!("no program at {}; is balancer loaded there?", path.display()))?;
    // One map takes the lines of all programs.
    let mut logger = EbpfLogger::init_from_id_with_logger(program.info()?.id(), Stdout).context(
        "the loaded object does not log; CONTRIBUTING.md says how to load one that does",
    )?;
    loop {
        logger.flush();
        let mut lines = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
        poll(&mut lines, PollTimeout::NONE)?;
    }
}
