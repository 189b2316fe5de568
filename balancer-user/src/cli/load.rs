//! `balancer load`: check, compile, publish, attach.
//!
//! Everything that can be known to fail is known before the first write: policies, the
//! configuration, capacities, interfaces. Interfaces are attached to before the set is
//! published: the programs then carry the set before (none, at first), and a hook that refuses
//! leaves that set live.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use serde::Serialize;

use super::{
    args::{Form, Global, Load},
    failure::Failure,
    inputs,
    output::{self, count},
};
use crate::{
    compile::{self, Assignment, Limits, Tables},
    kernel::{
        self, AttachOptions, Attached, Attachment, Datapath, KernelError, Lock, PublishOptions,
        Published,
    },
    policy::{PolicySet, ReadOptions},
    resolve::{self, ResolveSettings, Resolved},
    settings::{OnGone, Settings},
    store::{Live, Store},
};

/// Keys, and keys of groups, that `load` carries out; the others are the agent's.
const USED: [&str; 8] = [
    "vips",
    "zone",
    "no_route",
    "gateway_controller",
    "drain.on_gone",
    "drain.previous_for",
    "bpffs",
    "state",
];

/// How long a gone real keeps its connections with `on_gone: reset`: a file rewritten in two
/// steps breaks nothing (decision D15).
const GONE_RESET: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Load, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let config = inputs::settings(args.config.as_deref())?;
    let (bpffs, state) = (global.bpffs(config.as_ref()), global.state(config.as_ref()));
    let settings = config.unwrap_or_default();
    say_left_to_agent(&settings);
    let mut reading = inputs::read(&args.files.file, &ReadOptions::default())?;
    if !reading.report.valid() {
        inputs::accept(&reading.set.texts, &reading.report)?;
    }

    let lock = kernel::lock(&bpffs).map_err(|error| inputs::kernel(error, "cannot load"))?;
    let store = Store::open(&state).map_err(inputs::store)?;
    store.check_owner(&bpffs).map_err(inputs::store)?;
    let assigned = store.assignments().map_err(inputs::store)?;
    let resolve_settings = settings.resolve_settings(assigned);
    let resolved = resolve::resolve(&reading.set, &resolve_settings);
    inputs::merge(&mut reading.report, &resolved.diagnostics);
    inputs::accept(&reading.set.texts, &reading.report)?;

    let target = Target { bpffs, lock, store, settings };
    let outcome = target.carry_out(&reading.set, resolve_settings, &resolved, args)?;
    for warning in &outcome.warnings {
        output::say(&format!("warning: {warning}"));
    }
    output::value(form, &outcome, text)
}

fn say_left_to_agent(settings: &Settings) {
    let left: Vec<&str> = settings
        .present
        .iter()
        .map(String::as_str)
        .filter(|key| !USED.contains(key) && !key.starts_with("limits"))
        .collect();
    if !left.is_empty() {
        output::say(&format!(
            "note: `load` leaves these keys of the configuration to the agent: {}",
            left.join(", ")
        ));
    }
}

/// Where to load to, and how.
struct Target {
    bpffs: PathBuf,
    lock: Lock,
    store: Store,
    settings: Settings,
}

impl Target {
    fn carry_out(
        self,
        set: &PolicySet,
        resolve_settings: ResolveSettings,
        resolved: &Resolved,
        args: &Load,
    ) -> Result<Outcome, Failure> {
        let failed = |error| inputs::kernel(error, "cannot load");
        let mut pinned = match Datapath::open(&self.lock) {
            Ok(datapath) => Some(datapath),
            Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => None,
            Err(error) => return Err(failed(error)),
        };
        let (before, limits) = match &mut pinned {
            Some(datapath) => {
                let limits = datapath.limits().map_err(failed)?;
                self.limits_are_pinned(&limits)?;
                (datapath.assignment().map_err(failed)?.clone(), limits)
            }
            None => (Assignment::default(), self.settings.limits.unwrap_or_default()),
        };
        let tables = compile::compile(resolved, &before, &limits)
            .map_err(|error| Failure::policies(error).hint(limits_hint(pinned.is_some())))?;
        let first = pinned.is_none();
        let datapath = match pinned {
            Some(datapath) => datapath,
            None => Datapath::create(&self.lock, &limits).map_err(failed)?,
        };
        match self.publish(datapath, &tables, set, resolve_settings, resolved, args) {
            Ok((attached, published)) => {
                if let Err(error) = self.store.forget_others(published.epoch) {
                    output::say(&format!("warning: records of earlier sets are left: {error}"));
                }
                Ok(Outcome::new(first, &before, &tables, attached, published))
            }
            Err(failure) if first => {
                // What this call made is empty: nothing was running there before.
                drop(self.lock);
                if let Err(error) = kernel::unload(&self.bpffs) {
                    output::say(&format!("warning: what was made could not be removed: {error}"));
                }
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Maps cannot be resized: sizes that the file gives must be those pinned.
    fn limits_are_pinned(&self, pinned: &Limits) -> Result<(), Failure> {
        let Some(asked) = self.settings.limits else { return Ok(()) };
        let differing: Vec<String> = [
            ("flows", asked.flows, pinned.flows),
            ("half_open", asked.half_open, pinned.half_open),
            ("services", asked.services, pinned.services),
            ("sources", asked.sources, pinned.sources),
            ("routes", asked.routes, pinned.routes),
            ("reals", asked.reals, pinned.reals),
            ("counters", asked.counters, pinned.counters),
            ("arena_slots", arena_slots(asked.arena_slots), pinned.arena_slots),
        ]
        .into_iter()
        .filter(|(key, asked, pinned)| {
            self.settings.present.contains(&format!("limits.{key}")) && asked != pinned
        })
        .map(|(key, asked, pinned)| format!("limits.{key} is {asked}, pinned with {pinned}"))
        .collect();
        if differing.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "the sizes of the configuration differ from those of what is loaded at {}: {}",
            self.bpffs.display(),
            differing.join("; ")
        ))
        .hint(format!(
            "sizes are fixed when maps are made; keep the pinned ones, or unload first \
             (connections through VIPs break)\nbalancer unload --bpffs {}",
            self.bpffs.display()
        )))
    }

    fn publish(
        &self,
        mut datapath: Datapath,
        tables: &Tables,
        set: &PolicySet,
        resolve_settings: ResolveSettings,
        resolved: &Resolved,
        args: &Load,
    ) -> Result<(Attached, Published), Failure> {
        let interfaces: Vec<String> =
            args.attach.iter().map(|attach| attach.interface.clone()).collect();
        let attachments: Vec<Attachment> =
            interfaces.iter().map(|name| Attachment { interface: name.clone() }).collect();
        let attached = datapath
            .attach(&attachments, AttachOptions::default())
            .map_err(|error| inputs::kernel(error, "cannot attach; the set before stays live"))?;
        let live = Live {
            bpffs: self.bpffs.clone(),
            settings: ResolveSettings { assigned: resolved.assigned.clone(), ..resolve_settings },
            texts: set.texts.clone(),
        };
        let save = |epoch| {
            self.store.save_assignments(&resolved.assigned)?;
            self.store.save_live(epoch, &live)
        };
        let mut recorded = None;
        let mut record = |epoch| {
            let saved = save(epoch);
            recorded = Some(epoch);
            saved.map_err(Into::into)
        };
        let drain = self.settings.drain;
        let published = datapath
            .publish(
                tables,
                PublishOptions {
                    previous_for: drain.previous_for,
                    gone_reset: (drain.on_gone == OnGone::Reset).then_some(GONE_RESET),
                    interfaces: &interfaces,
                    before_flip: Some(&mut record),
                },
            )
            .map_err(|error| inputs::kernel(error, "cannot publish; the set before stays live"))?;
        // Equal tables are not published again, but names and positions may have changed.
        if recorded != Some(published.epoch) {
            save(published.epoch).map_err(inputs::store)?;
        }
        Ok((attached, published))
    }
}

/// Slots of the arena as its chunks hold them.
fn arena_slots(asked: u32) -> u32 {
    use balancer_ebpf::abi::{CHUNK_WORDS, SLOTS_PER_WORD};
    let chunk = CHUNK_WORDS as u32 * SLOTS_PER_WORD;
    asked.div_ceil(chunk).saturating_mul(chunk)
}

fn limits_hint(pinned: bool) -> &'static str {
    if pinned {
        "raise the limit in the configuration file, `balancer unload`, then load with --config"
    } else {
        "raise the limit in the configuration file and load with --config"
    }
}

/// What a load did: names of fields are those of `-o json`.
#[derive(Serialize)]
struct Outcome {
    epoch: u64,
    /// Programs and maps were made by this load.
    first: bool,
    vips: usize,
    sources: usize,
    routes: usize,
    reals: usize,
    vips_added: Vec<String>,
    vips_removed: Vec<String>,
    sources_added: usize,
    sources_removed: usize,
    tables_written: usize,
    attached: Vec<LinkLine>,
    /// From the beginning of the publish to the flip.
    flip_ms: f64,
    /// From the flip until no packet can see the set before.
    grace_ms: f64,
    warnings: Vec<String>,
}

/// A program on an interface.
#[derive(Serialize)]
pub(crate) struct LinkLine {
    pub(crate) interface: String,
    pub(crate) direction: &'static str,
    pub(crate) hook: &'static str,
}

impl LinkLine {
    pub(crate) fn new(interface: &str, direction: kernel::Direction, hook: kernel::Hook) -> Self {
        Self {
            interface: interface.to_owned(),
            direction: match direction {
                kernel::Direction::Ingress => "ingress",
                kernel::Direction::Egress => "egress",
            },
            hook: match hook {
                kernel::Hook::Tcx => "tcx",
                kernel::Hook::Clsact => "clsact",
            },
        }
    }
}

impl Outcome {
    fn new(
        first: bool,
        before: &Assignment,
        tables: &Tables,
        attached: Attached,
        published: Published,
    ) -> Self {
        let ms = |duration: Duration| (duration.as_secs_f64() * 100_000.0).round() / 100.0;
        let foreign = attached.foreign.iter().map(|program| {
            let line = LinkLine::new(&program.interface, program.direction, program.hook);
            format!(
                "{} ({}) also has the program {} of somebody else; it is not touched",
                line.interface, line.direction, program.name
            )
        });
        Self {
            epoch: published.epoch,
            first,
            vips: tables.vips.len(),
            sources: tables.sources.len(),
            routes: tables.routes.len(),
            reals: tables.reals.len(),
            vips_added: tables
                .vips
                .keys()
                .filter(|key| !before.vips.contains_key(key))
                .map(|key| key.addr.to_string())
                .collect(),
            vips_removed: before
                .vips
                .keys()
                .filter(|key| !tables.vips.contains_key(key))
                .map(|key| key.addr.to_string())
                .collect(),
            sources_added: tables
                .sources
                .keys()
                .filter(|address| !before.sources.contains_key(address))
                .count(),
            sources_removed: before
                .sources
                .keys()
                .filter(|address| !tables.sources.contains_key(address))
                .count(),
            tables_written: published.written.tables,
            attached: attached
                .made
                .iter()
                .map(|link| LinkLine::new(&link.interface, link.direction, link.hook))
                .collect(),
            flip_ms: ms(published.flip),
            grace_ms: ms(published.grace),
            warnings: tables
                .warnings
                .iter()
                .cloned()
                .chain(foreign)
                .chain(attached.warnings.iter().cloned())
                .collect(),
        }
    }
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "epoch {} is live: {}, {}, {}, {}\n",
        outcome.epoch,
        count(outcome.vips, "VIP"),
        count(outcome.sources, "source"),
        count(outcome.routes, "route"),
        count(outcome.reals, "real"),
    );
    let mut changes = Vec::new();
    // Writing to a string cannot fail.
    let mut change = |number: usize, noun: &str, what: &str| {
        if number > 0 {
            changes.push(format!("{} {what}", count(number, noun)));
        }
    };
    change(outcome.vips_added.len(), "VIP", "added");
    change(outcome.vips_removed.len(), "VIP", "removed");
    change(outcome.sources_added, "source", "added");
    change(outcome.sources_removed, "source", "removed");
    change(outcome.tables_written, "table", "written");
    if changes.is_empty() {
        changes.push("nothing".to_owned());
    }
    let _ = writeln!(text, "changed: {}", changes.join(", "));
    for link in &outcome.attached {
        let _ = writeln!(text, "attached: {} {} ({})", link.interface, link.direction, link.hook);
    }
    let _ = writeln!(
        text,
        "new connections met it after {} ms; no packet sees the set before after {} ms more",
        outcome.flip_ms, outcome.grace_ms
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_is_counted_in_whole_chunks() {
        assert_eq!(arena_slots(1), 65_536);
        assert_eq!(arena_slots(65_536), 65_536);
        assert_eq!(arena_slots(Limits::default().arena_slots), Limits::default().arena_slots);
    }
}
