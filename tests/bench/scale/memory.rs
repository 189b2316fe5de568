//! What sets cost in memory.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use balancer_ebpf::abi::map_names;
use balancer_user::{
    compile::{Assignment, compile},
    kernel::{self, Datapath, PublishOptions, View},
    policy::{self, ReadOptions},
    resolve::resolve,
    settings::Settings,
};
use harness::{Bpffs, Root};

use crate::{measure::Measure, node::Node, set};

/// What a node with a set of this name has now.
pub(crate) fn measures(node: &Node, of: &str) -> Result<Vec<Measure>> {
    let (maps, process) = (maps(node.datapath.view())?, of_process()?);
    let one = |name: &str, kib| Measure::new(format!("memory.{name}"), "KiB", &[kib]);
    Ok(vec![
        one(&format!("maps.{of}"), maps.all / 1024.0),
        one(&format!("maps.{of}.arena"), maps.arena / 1024.0),
        one(&format!("process.{of}"), process.most),
        one(&format!("process.{of}.own"), process.own),
    ])
}

/// What the kernel accounts for maps, in bytes.
struct Maps {
    all: f64,
    arena: f64,
}

fn maps(view: &View) -> Result<Maps> {
    let rows = view.maps()?;
    let sum = |only: Option<&str>| {
        let rows = rows.iter().filter(|row| only.is_none_or(|name| row.name == name));
        rows.map(|row| row.memory as f64).sum()
    };
    Ok(Maps { all: sum(None), arena: sum(Some(map_names::ARENA)) })
}

/// Memory of this process, in KiB.
struct Process {
    /// The most that it had at once.
    most: f64,
    /// Now, without what it maps.
    own: f64,
}

fn of_process() -> Result<Process> {
    let text = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key));
        let number = rest.and_then(|rest| rest.trim_matches([':', '\t', ' ']).split(' ').next());
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("/proc/self/status has no line {key}"))
    };
    Ok(Process { most: line("VmHWM")?, own: line("RssAnon")? })
}

/// What one VIP with a 90/10 split of two reals adds: maps made to fit many, less maps made to
/// fit few.
pub(crate) fn split(root: Root) -> Result<Measure> {
    const FEW: usize = 2_000;
    const MANY: usize = 12_000;
    let (few, many) = (splits(root, FEW)?, splits(root, MANY)?);
    let each = (many - few) / (MANY - FEW) as f64;
    Ok(Measure::new("memory.split", "B", &[each]))
}

/// Bytes of the maps of so many splits.
fn splits(root: Root, services: usize) -> Result<f64> {
    let files = tempfile::tempdir().context("no temporary directory")?;
    set::write(files.path(), (services, 2), 1)?;
    let reading =
        policy::read(policy::gather(&[files.path().to_owned()])?, &ReadOptions::default());
    ensure!(reading.report.valid(), "the policies of the bench are not valid");
    let resolved = resolve(&reading.set, &Settings::default().resolve_settings(Default::default()));
    let generous = set::limits((2 * services, 2), 600);
    let tables = compile(&resolved, &Assignment::default(), &generous)?;
    // Exactly what they need; connections are not part of a split.
    let mut limits = tables.needs();
    (limits.flows, limits.half_open) = (1024, 1024);
    let bpffs = Bpffs::mount(root, "bench")?;
    let lock = kernel::lock(&bpffs.pins())?;
    let mut datapath = Datapath::create(&lock, &limits)?;
    datapath.publish(
        &tables,
        PublishOptions { previous_for: Duration::ZERO, ..PublishOptions::default() },
    )?;
    Ok(maps(datapath.view())?.all)
}
