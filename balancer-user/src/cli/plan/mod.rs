//! `balancer plan`: what a load would change.

use std::path::PathBuf;

use self::report::{Against, Report};
use super::{
    args::{Form, Global},
    check, explain,
    failure::Failure,
    inputs,
    live::{self, LiveSet},
    lookup, output,
};
use crate::{
    compile::{self, Assignment, Limits, Tables},
    kernel::{Datapath, KernelError},
    node::{self, NodeError},
    plan::{self, LiveFlow, Side},
    policy::{self, ReadOptions, Reading},
    resolve::{self, ResolveSettings, Resolved, VipAssignments},
    settings::Settings,
};

mod findings;
mod report;
mod room;
mod text;
pub(crate) mod words;

pub(crate) fn run(args: &words::Plan, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let config = inputs::settings(args.config.as_deref())?;
    let global = Global {
        bpffs: Some(global.bpffs(config.as_ref())),
        state: Some(global.state(config.as_ref())),
        output: form,
    };
    let settings = config.unwrap_or_default();
    let mut new =
        Policies { reading: check::read(&args.files.file, &ReadOptions::default(), form)? };
    if !new.reading.report.valid() {
        return check::print(form, &new.reading);
    }
    let assigned = explain::assignments(&global.state(None))?;
    let report = if args.against == [PathBuf::from("live")] {
        against_live(&mut new, &settings, assigned, &global)?
    } else {
        against_files(&mut new, &settings, assigned, &args.against)?
    };
    match report {
        Some(report) => output::value(form, &report, text::text),
        // What stands between resources is wrong.
        None => check::print(form, &new.reading),
    }
}

/// Policies that were read, and later what they resolve to.
struct Policies {
    reading: Reading,
}

impl Policies {
    /// Resolves; `None` where the policies contradict each other, which the report says then.
    fn resolve(&mut self, settings: &ResolveSettings) -> Option<Resolved> {
        let resolved = resolve::resolve(&self.reading.set, settings);
        self.reading.report.merge(&resolved.diagnostics);
        self.reading.report.valid().then_some(resolved)
    }
}

/// The set that is compared with.
struct Old<'a> {
    side: Side<'a>,
    assignment: Assignment,
    report: policy::Report,
}

fn against_live(
    new: &mut Policies,
    settings: &Settings,
    assigned: VipAssignments,
    global: &Global,
) -> Result<Option<Report>, Failure> {
    let resolve_settings = ResolveSettings {
        names: lookup::look_up([&new.reading.set]),
        ..settings.resolve_settings(assigned)
    };
    let Some(resolved) = new.resolve(&resolve_settings) else {
        return Ok(None);
    };
    let bpffs = global.bpffs(None);
    match Datapath::open_read_only(&bpffs) {
        Ok(_) => {}
        Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => {
            let limits = settings.limits.unwrap_or_default();
            let tables = compiled(&resolved, &Assignment::default(), &limits, false)?;
            let old = Old {
                side: Side { resolved: &Resolved::default(), tables: &Tables::default() },
                assignment: Assignment::default(),
                report: policy::Report::default(),
            };
            let against = Against::Nothing { bpffs: bpffs.display().to_string() };
            return compare(against, &old, None, (new, &resolved, &tables), &limits).map(Some);
        }
        Err(error) => return Err(inputs::kernel(error, "cannot read the live set")),
    }
    live::read(global, |live| {
        let failed = |error| inputs::kernel(error, "cannot read the live set");
        let (epoch, names) = (live.view.epoch(), &live.names);
        if epoch > 0 && names.settings.is_none() {
            return Err(live::no_record(global, "cannot compare with the live set"));
        }
        let limits = live.view.limits().map_err(failed)?;
        let assignment = live.view.assignment().map_err(failed)?;
        node::limits_are_pinned(&bpffs, settings, &limits).map_err(inputs::node)?;
        let tables = compiled(&resolved, &assignment, &limits, true)?;
        live.view
            .foresee(&tables, settings.drain.previous_for)
            .map_err(|error| inputs::kernel(error, "cannot be loaded"))?;
        let one_way = live.view.one_way_interfaces().map_err(failed)?;
        node::check_one_way(&tables, one_way).map_err(inputs::node)?;
        let mut reading = policy::read(names.set.documents.texts.clone(), &ReadOptions::default());
        reading.report.merge(&names.resolved.diagnostics);
        let old = Old {
            side: Side { resolved: &names.resolved, tables: &names.tables },
            assignment,
            report: reading.report,
        };
        let flows = Some(flows(live).map_err(failed)?);
        compare(Against::Live { epoch }, &old, flows, (new, &resolved, &tables), &limits).map(Some)
    })
}

fn against_files(
    new: &mut Policies,
    settings: &Settings,
    assigned: VipAssignments,
    paths: &[PathBuf],
) -> Result<Option<Report>, Failure> {
    let limits = settings.limits.unwrap_or_default();
    let mut old = Policies { reading: inputs::read(paths, &ReadOptions::default())? };
    let resolve_settings = ResolveSettings {
        names: lookup::look_up([&new.reading.set, &old.reading.set]),
        ..settings.resolve_settings(assigned)
    };
    let resolved = old.reading.report.valid().then(|| old.resolve(&resolve_settings)).flatten();
    let Some(resolved) = resolved else {
        output::say("note: what follows is about the policies to compare with (--against)");
        // Fails: they are not valid.
        inputs::accept(&old.reading.report)?;
        return Ok(None);
    };
    let tables = compiled(&resolved, &Assignment::default(), &limits, false)?;
    let assignment = Assignment::default().after(&tables);
    // A load after a load finds the VIPs that the first one allocated.
    let resolve_settings =
        ResolveSettings { assigned: resolved.assigned.clone(), ..resolve_settings };
    let Some(new_resolved) = new.resolve(&resolve_settings) else { return Ok(None) };
    let new_tables = compiled(&new_resolved, &assignment, &limits, false)?;
    let files = paths.iter().map(|path| path.display().to_string()).collect();
    let side = Side { resolved: &resolved, tables: &tables };
    let old = Old { side, assignment, report: old.reading.report };
    compare(Against::Files { files }, &old, None, (new, &new_resolved, &new_tables), &limits)
        .map(Some)
}

fn compiled(
    resolved: &Resolved,
    assignment: &Assignment,
    limits: &Limits,
    pinned: bool,
) -> Result<Tables, Failure> {
    compile::compile(resolved, assignment, limits)
        .map_err(|source| inputs::node(NodeError::Capacity { source, pinned }))
}

fn compare(
    against: Against,
    old: &Old<'_>,
    flows: Option<Vec<LiveFlow>>,
    (new, resolved, tables): (&Policies, &Resolved, &Tables),
    limits: &Limits,
) -> Result<Report, Failure> {
    let side = Side { resolved, tables };
    let changes = plan::compare(old.side, side, flows.map(Vec::into_iter));
    let room = room::rows(&old.assignment, old.side.tables, tables, limits)
        .map_err(|error| inputs::kernel(error, "cannot size the maps"))?;
    let findings = findings::new(&new.reading, &old.report);
    let known_warnings = &old.side.tables.warnings;
    let warnings = tables.warnings.iter().filter(|warning| !known_warnings.contains(warning));
    Ok(Report { against, changes, room, findings, warnings: warnings.cloned().collect() })
}

/// Live connections.
fn flows(live: &LiveSet) -> Result<Vec<LiveFlow>, KernelError> {
    let reals = live.addresses_of_reals()?;
    let flows = live.connections()?.into_iter().map(|flow| LiveFlow {
        client: flow.src.ip(),
        vip: flow.vip,
        real: reals.get(&(flow.flow.real, flow.flow.generation)).copied(),
    });
    Ok(flows.collect())
}
