//! One size: load, change, show, memory.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use balancer_user::kernel;
use harness::{Bpffs, Root, instance::balancer_binary};

use crate::{
    measure::Measure,
    memory,
    node::{Load, Node, Took, ms, of_changes},
    set,
};

/// Takes one endpoint away and brings it back.
fn change(node: &mut Node, number: usize, whole: bool) -> Result<[Took; 2]> {
    const DATAPLANE: &str = "---\ntype: Dataplane";
    let any = (number * 7919..).take(node.texts.len()).map(|at| at % node.texts.len());
    let mut any = any.filter(|at| node.texts[*at].text.contains(DATAPLANE));
    let at = any.next().context("no text has a Dataplane")?;
    let before: Arc<str> = (*node.texts[at].text).into();
    let dataplane = before.rfind(DATAPLANE).context("no Dataplane there")?;
    let end = before[dataplane + 4..].find("---\n").map(|end| dataplane + 4 + end);
    let rest = end.map_or("", |end| &before[end..]);
    let without = format!("{}{rest}", &before[..dataplane]);
    let mut turn = |text: Arc<str>| {
        let took = node.turn(at, text, whole)?;
        ensure!(took.tables == 1, "one table changes, not {}", took.tables);
        ensure!(took.by_difference != whole, "one endpoint is a small change");
        Ok(took)
    };
    Ok([turn(without.into())?, turn(before)?])
}

pub(crate) fn measures(root: Root, size: (usize, usize), changes: usize) -> Result<Vec<Measure>> {
    let name = format!("{}x{}", size.0, size.1);
    let home = tempfile::tempdir().context("no temporary directory")?;
    let files = home.path().join("policies");
    fs::create_dir(&files)?;
    set::write(&files, size, set::ROUTED)?;
    let bpffs = Bpffs::mount(root, "bench")?;
    let state = home.path().join("state");
    // The largest table is that of a split, 90/10 over all reals of a service.
    let slots = if size.1 > 9 { 1100 } else { 1060 };
    let mut limits = set::limits(size, slots);
    if size.0 * size.1 > 100_000 {
        // Half the default: what such a set leaves of 512 MiB.
        limits.flows = 131_072;
    }

    let lock = kernel::lock(&bpffs.pins())?;
    let (mut node, load) = Load::new(&files, &state, &lock, limits)?;
    ensure!(node.tables.reals.len() == size.0 * size.1, "a Dataplane was lost");

    let mut took: Vec<Took> = Vec::new();
    for number in 0..changes.max(1) {
        took.extend(change(&mut node, number, false)?);
    }
    let show = show(&bpffs.pins(), &state)?;
    let memory = memory::measures(&node, &name)?;
    let wholes = change(&mut node, changes, true)?;
    drop(node);
    drop(lock);

    let whole = |what: &str, part: fn(&Took) -> f64| {
        Measure::new(format!("change.{name}.whole{what}"), "ms", &wholes.each_ref().map(part))
    };
    let mut measures = load.measures(&name);
    measures.extend(of_changes(&format!("change.{name}"), &took));
    measures.extend([
        whole("", Took::all),
        whole(".read", |took| took.read),
        whole(".resolve", |took| took.resolve),
        whole(".compile", |took| took.compile),
        whole(".publish", |took| took.publish),
        Measure::new(format!("show.{name}"), "ms", &show),
    ]);
    measures.extend(memory);
    Ok(measures)
}

/// Times `balancer show vips`, three times.
pub(crate) fn show(bpffs: &Path, state: &Path) -> Result<Vec<f64>> {
    (0..3)
        .map(|_| {
            let begun = Instant::now();
            let output = Command::new(balancer_binary())
                .args(["show", "vips", "-o", "json", "--bpffs"])
                .arg(bpffs)
                .arg("--state")
                .arg(state)
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
                .context("cannot run balancer")?;
            let took = ms(begun.elapsed());
            ensure!(output.status.success(), "balancer show failed");
            ensure!(output.stdout.len() > 1000, "balancer show printed nothing");
            Ok(took)
        })
        .collect()
}
