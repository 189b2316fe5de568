//! What the verifier says of the programs on the running kernel, and what their maps take: one
//! line of JSON for each program. `cargo xtask bpf --stats` runs this here and in guests;
//! `docs/datapath.md` says what each figure is.

mod stack;
mod verdict;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use aya::{maps::MapInfo, programs::ProgramInfo};
use balancer_ebpf::abi::program_names;
use balancer_user::{
    compile::Limits,
    kernel::{self, Datapath, object},
};
use harness::{Bpffs, Root};
use serde::Serialize;

/// What is said of one program.
#[derive(Debug, Serialize)]
struct Line {
    program: &'static str,
    /// The running kernel's release.
    kernel: String,
    /// CPUs that the kernel has room for: maps have an element for each.
    cpus: usize,
    /// Instructions after the verifier's rewriting, before they become machine code.
    instructions: usize,
    /// Instructions that the verifier followed, over all paths.
    verified: u32,
    /// Bytes of the deepest chain of calls.
    stack: u32,
    /// States that the verifier kept at one time.
    peak_states: u32,
    /// Bytes of all maps of the program.
    map_memory: u64,
    /// Bytes of each map.
    maps: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Root::check()
        .map_err(|missing| anyhow!("only root may load programs ({missing}): run it as root"))?;
    let object = object::datapath()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("reading /proc/sys/kernel/osrelease")?;
    let cpus = aya::util::nr_cpus().map_err(|(path, e)| anyhow!("reading {path}: {e}"))?;
    let bpffs = Bpffs::mount(root, "stats")?;
    let lock = kernel::lock(&bpffs.pins())?;
    let datapath = Datapath::create(&lock, &Limits::default())?;
    for &program in program_names::ALL {
        let pin = bpffs.pins().join("progs").join(program);
        let info =
            ProgramInfo::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
        let loaded = info.fd().with_context(|| format!("opening {program}"))?;
        let instructions = harness::translated(loaded.as_fd())
            .with_context(|| format!("reading the instructions of {program}"))?;
        let verdict = verdict::of(object, program)?;
        let maps = info
            .map_ids()?
            .with_context(|| format!("this kernel does not say which maps {program} uses"))?
            .into_iter()
            .map(memory)
            .collect::<Result<BTreeMap<_, _>>>()?;
        let line = Line {
            program,
            kernel: kernel.trim().to_owned(),
            cpus,
            instructions: instructions.len(),
            verified: info
                .verified_instruction_count()
                .context("the kernel tells no number of verified instructions")?,
            stack: stack::deepest(&instructions, &verdict.frames)
                .with_context(|| format!("adding up the stack of {program}"))?,
            peak_states: verdict.peak_states,
            map_memory: maps.values().sum(),
            maps,
        };
        println!("{}", serde_json::to_string(&line)?);
    }
    drop(datapath);
    Ok(())
}

/// Name and memory of the map with this id. What the kernel charges for it is in the descriptor's
/// file in procfs (`kernel/bpf/syscall.c`, `bpf_map_show_fdinfo`).
fn memory(id: u32) -> Result<(String, u64)> {
    let info = MapInfo::from_id(id).with_context(|| format!("asking about map {id}"))?;
    let name = String::from_utf8_lossy(info.name()).into_owned();
    let fd = info.fd().with_context(|| format!("opening map {name}"))?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text =
        fs::read_to_string(&path).with_context(|| format!("reading {path} of map {name}"))?;
    let bytes = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .with_context(|| format!("{path} of map {name} has no line `memlock`"))?
        .trim()
        .parse()
        .with_context(|| format!("the line `memlock` of map {name} in {path}"))?;
    Ok((name, bytes))
}
