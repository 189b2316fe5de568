//! One size: load, change, show, memory.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_user::{
    compile::{Compiler, Limits, Tables},
    kernel::{self, Datapath, PublishOptions},
    policy::{self, Edits, ReadOptions, Reader, SourceText, Texts},
    resolve::{Change, Resolution, ResolveSettings},
    settings::Settings,
    store::{Recorder, Store},
};
use harness::{Bpffs, Root, instance::balancer_binary};

use crate::{measure::Measure, memory, set};

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What one set took until packets saw it.
#[derive(Default)]
struct Took {
    read: f64,
    resolve: f64,
    compile: f64,
    publish: f64,
    record: f64,
}

impl Took {
    fn all(&self) -> f64 {
        self.read + self.resolve + self.compile + self.publish
    }
}

/// A node as the agent has it.
struct Node {
    texts: Texts,
    reader: Reader,
    resolution: Option<Resolution>,
    compiler: Compiler,
    tables: Tables,
    datapath: Datapath,
    recorder: Recorder,
    settings: ResolveSettings,
    limits: Limits,
}

impl Node {
    /// Carries out what the texts say now; with `whole` as if nothing were known of the set before.
    fn carry_out(&mut self, whole: bool) -> Result<(Took, usize)> {
        let first = self.datapath.epoch() == 0;
        let mut took = Took::default();
        let begun = Instant::now();
        let (reading, edits) = if whole {
            (policy::read(self.texts.clone(), &ReadOptions::default()), Edits::Whole)
        } else {
            self.reader.read(self.texts.clone())
        };
        took.read = ms(begun.elapsed());
        ensure!(reading.report.valid(), "the policies of the bench are not valid");

        let begun = Instant::now();
        let mut change = Change::Whole;
        let resolution = match self.resolution.take() {
            Some(mut resolution) => {
                change = resolution.follow(&reading.set, &self.settings, &edits);
                resolution
            }
            None => Resolution::new(&reading.set, &self.settings),
        };
        let resolved = resolution.resolved();
        took.resolve = ms(begun.elapsed());
        ensure!(resolved.diagnostics.is_empty(), "{:?}", resolved.diagnostics.first());

        let begun = Instant::now();
        let before = self.datapath.assignment()?;
        let patch = match change {
            Change::Parts(parts) => {
                self.compiler.patch(&mut self.tables, resolved, &parts, before, &self.limits)
            }
            Change::Whole => None,
        };
        if patch.is_none() {
            ensure!(whole || first, "one endpoint is a small change");
            self.tables = self.compiler.compile(resolved, before, &self.limits)?;
        }
        took.compile = ms(begun.elapsed());

        let mut recorded = Duration::ZERO;
        let (recorder, settings) = (&mut self.recorder, &self.settings);
        let assigned = patch.is_none().then_some(&resolved.assigned);
        let mut record = |epoch| {
            let begun = Instant::now();
            recorder.save(epoch, settings, assigned, &reading.set.texts)?;
            recorded = begun.elapsed();
            Ok(())
        };
        let options = PublishOptions {
            previous_for: Duration::from_secs(3600),
            gone_reset: Some(Duration::ZERO),
            interfaces_as_before: true,
            before_flip: Some(&mut record),
            ..PublishOptions::default()
        };
        let published = match &patch {
            Some(patch) => self.datapath.publish_patch(&self.tables, patch, options)?,
            None => self.datapath.publish(&self.tables, options)?,
        };
        took.publish = ms(published.flip);
        took.record = ms(recorded);
        self.recorder.settle(published.epoch)?;
        self.settings.assigned = resolved.assigned.clone();
        self.resolution = Some(resolution);
        Ok((took, published.written.tables))
    }

    /// Takes one endpoint away and brings it back.
    fn change(&mut self, number: usize, whole: bool) -> Result<[Took; 2]> {
        const DATAPLANE: &str = "---\ntype: Dataplane";
        let any = (number * 7919..).take(self.texts.len()).map(|at| at % self.texts.len());
        let mut any = any.filter(|at| self.texts[*at].text.contains(DATAPLANE));
        let at = any.next().context("no text has a Dataplane")?;
        let before = self.texts[at].clone();
        let dataplane = before.text.rfind(DATAPLANE).context("no Dataplane there")?;
        let end = before.text[dataplane + 4..].find("---\n").map(|end| dataplane + 4 + end);
        let rest = end.map_or("", |end| &before.text[end..]);
        let without = format!("{}{rest}", &before.text[..dataplane]);
        let mut turn = |text: Arc<str>| {
            self.texts.set(at, SourceText { name: before.name.clone(), text });
            let (took, tables) = self.carry_out(whole)?;
            ensure!(tables == 1, "one table changes, not {tables}");
            Ok(took)
        };
        Ok([turn(without.into())?, turn((*before.text).into())?])
    }
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

    let begun = Instant::now();
    let texts = policy::gather(&[files])?;
    let gather = ms(begun.elapsed());
    let lock = kernel::lock(&bpffs.pins())?;
    let begun = Instant::now();
    let datapath = Datapath::create(&lock, &limits)?;
    let create = ms(begun.elapsed());
    let mut node = Node {
        texts,
        reader: Reader::new(ReadOptions::default()),
        resolution: None,
        compiler: Compiler::new(),
        tables: Tables::default(),
        datapath,
        recorder: Recorder::new(Store::open(&state)?, &bpffs.pins()),
        settings: Settings::default().resolve_settings(Default::default()),
        limits,
    };
    let (first, _) = node.carry_out(false)?;
    ensure!(node.tables.reals.len() == size.0 * size.1, "a Dataplane was lost");

    let mut took: Vec<Took> = Vec::new();
    for change in 0..changes.max(1) {
        took.extend(node.change(change, false)?);
    }
    let show = show(&bpffs.pins(), &state)?;
    let maps = memory::maps(node.datapath.view())?;
    let process = memory::of_process()?;
    let wholes = node.change(changes, true)?;
    drop(node);
    drop(lock);

    let of = |part: fn(&Took) -> f64| took.iter().map(part).collect::<Vec<f64>>();
    let all = of(Took::all);
    let change = format!("change.{name}");
    let part = |what: &str, values: Vec<f64>| {
        Measure::new(format!("{change}.{what}"), "ms", &values).against(&change, &values, &all)
    };
    let whole = |what: &str, part: fn(&Took) -> f64| {
        Measure::new(format!("{change}.whole{what}"), "ms", &wholes.each_ref().map(part))
    };
    let one = |name: String, unit, value| Measure::new(name, unit, &[value]);
    let load = format!("load.{name}");
    Ok(vec![
        one(load.clone(), "ms", gather + create + first.all()),
        one(format!("{load}.read"), "ms", gather + first.read),
        one(format!("{load}.create"), "ms", create),
        one(format!("{load}.resolve"), "ms", first.resolve),
        one(format!("{load}.compile"), "ms", first.compile),
        one(format!("{load}.publish"), "ms", first.publish),
        Measure::new(&change, "ms", &all),
        one(format!("{change}.p99"), "ms", percentile_99(&all)),
        part("read", of(|took| took.read)),
        part("resolve", of(|took| took.resolve)),
        part("compile", of(|took| took.compile)),
        part("publish", of(|took| took.publish)),
        part("record", of(|took| took.record)),
        whole("", Took::all),
        whole(".read", |took| took.read),
        whole(".resolve", |took| took.resolve),
        whole(".compile", |took| took.compile),
        whole(".publish", |took| took.publish),
        Measure::new(format!("show.{name}"), "ms", &show),
        one(format!("memory.maps.{name}"), "KiB", maps.all / 1024.0),
        one(format!("memory.maps.{name}.arena"), "KiB", maps.arena / 1024.0),
        one(format!("memory.process.{name}"), "KiB", process.most),
        one(format!("memory.process.{name}.own"), "KiB", process.own),
    ])
}

/// Times `balancer show vips`, three times.
fn show(bpffs: &Path, state: &Path) -> Result<Vec<f64>> {
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

fn percentile_99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}
