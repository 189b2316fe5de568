//! A node as the agent has it, and what it takes to carry out a set.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::measure::Measure;
use anyhow::{Result, ensure};
use balancer_user::{
    compile::{Compiler, Limits, Tables},
    kernel::{Datapath, Lock, PublishOptions},
    policy::{self, Diagnostic, Edits, Meta, ReadOptions, Reader, Severity, SourceText, Texts},
    resolve::{Change, Resolution, ResolveSettings},
    settings::Settings,
    store::{Recorder, Store},
};

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What one set took until packets saw it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Took {
    pub(crate) read: f64,
    pub(crate) resolve: f64,
    pub(crate) compile: f64,
    pub(crate) publish: f64,
    pub(crate) record: f64,
    /// Nothing was resolved or compiled as a whole.
    pub(crate) by_difference: bool,
    /// Tables of slots that were written.
    pub(crate) tables: usize,
}

impl Took {
    pub(crate) fn all(&self) -> f64 {
        self.read + self.resolve + self.compile + self.publish
    }
}

/// A node as the agent has it.
pub(crate) struct Node {
    pub(crate) texts: Texts,
    reader: Reader,
    resolution: Option<Resolution>,
    compiler: Compiler,
    pub(crate) tables: Tables,
    pub(crate) datapath: Datapath,
    recorder: Recorder,
    settings: ResolveSettings,
    limits: Limits,
}

impl Node {
    /// Carries out what the texts say now; with `whole` as if nothing were known of the set before.
    pub(crate) fn carry_out(&mut self, whole: bool) -> Result<Took> {
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
        let wrong = |(_, found): &&(Meta, Diagnostic)| found.severity == Severity::Error;
        let error = resolved.diagnostics.iter().find(wrong);
        ensure!(error.is_none(), "{error:?}");

        let begun = Instant::now();
        let before = self.datapath.assignment()?;
        let patch = match change {
            Change::Parts(parts) => {
                self.compiler.patch(&mut self.tables, resolved, &parts, before, &self.limits)
            }
            Change::Whole => None,
        };
        if patch.is_none() {
            self.tables = self.compiler.compile(resolved, before, &self.limits)?;
        }
        took.compile = ms(begun.elapsed());
        took.by_difference = patch.is_some();

        let mut recorded = Duration::ZERO;
        let (recorder, settings) = (&mut self.recorder, &self.settings);
        let assigned = patch.is_none().then_some(&resolved.assigned);
        let mut record = |epoch| {
            let begun = Instant::now();
            recorder.save(epoch, settings, assigned, &reading.set.documents.texts)?;
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
        took.tables = published.written.tables;
        Ok(took)
    }

    /// Carries out another content of one text.
    pub(crate) fn turn(&mut self, at: usize, text: Arc<str>, whole: bool) -> Result<Took> {
        let name = self.texts[at].name.clone();
        self.texts.set(at, SourceText { name, text });
        self.carry_out(whole)
    }
}

/// What the measures of a load are.
pub(crate) struct Load {
    gather: f64,
    create: f64,
    first: Took,
}

impl Load {
    /// Loads the files of a directory into empty maps.
    pub(crate) fn new(
        files: &Path,
        state: &Path,
        lock: &Lock,
        limits: Limits,
    ) -> Result<(Node, Self)> {
        let begun = Instant::now();
        let texts = policy::gather(&[files.to_owned()])?;
        let gather = ms(begun.elapsed());
        let begun = Instant::now();
        let datapath = Datapath::create(lock, &limits)?;
        let create = ms(begun.elapsed());
        let mut node = Node {
            texts,
            reader: Reader::new(ReadOptions::default()),
            resolution: None,
            compiler: Compiler::new(),
            tables: Tables::default(),
            datapath,
            recorder: Recorder::new(Store::open(state)?, lock.path()),
            settings: Settings::default().resolve_settings(Default::default()),
            limits,
        };
        let first = node.carry_out(false)?;
        Ok((node, Self { gather, create, first }))
    }

    /// The measures of the load of a set of this name.
    pub(crate) fn measures(&self, of: &str) -> Vec<Measure> {
        let Self { gather, create, first } = self;
        let one = |part: &str, value| Measure::new(format!("load.{of}{part}"), "ms", &[value]);
        vec![
            one("", gather + create + first.all()),
            one(".read", gather + first.read),
            one(".create", *create),
            one(".resolve", first.resolve),
            one(".compile", first.compile),
            one(".publish", first.publish),
        ]
    }
}

/// The measures of changes of this name, and of their parts.
pub(crate) fn of_changes(name: &str, took: &[Took]) -> Vec<Measure> {
    let of = |part: fn(&Took) -> f64| took.iter().map(part).collect::<Vec<f64>>();
    let all = of(Took::all);
    let part = |what: &str, values: Vec<f64>| {
        Measure::new(format!("{name}.{what}"), "ms", &values).against(name, &values, &all)
    };
    vec![
        Measure::new(name, "ms", &all),
        Measure::new(format!("{name}.p99"), "ms", &[percentile_99(&all)]),
        part("read", of(|took| took.read)),
        part("resolve", of(|took| took.resolve)),
        part("compile", of(|took| took.compile)),
        part("publish", of(|took| took.publish)),
        part("record", of(|took| took.record)),
    ]
}

fn percentile_99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}
