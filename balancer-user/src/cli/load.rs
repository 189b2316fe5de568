//! `balancer load`: check, compile, publish, attach.
//!
//! Everything that can be known to fail is known before the first write: policies, the
//! configuration, capacities, interfaces. The steps and their order are the room `node`'s.

use std::{fmt::Write as _, time::Duration};

use balancer_ebpf::abi::route_flags;
use serde::Serialize;

use super::{
    args::{Form, Global, Load},
    failure::Failure,
    forwarding::Told,
    inputs, lookup,
    output::{self, count},
    snat,
};
use crate::{
    kernel,
    node::{Carried, Node, Wanted},
    policy::ReadOptions,
    resolve::{self, ResolveSettings, VipKey},
    settings::{Forwarding, L7Fallback, Settings},
};

/// Keys, and keys of groups, that `load` carries out; the others are the agent's.
const USED: [&str; 11] = [
    "forwarding",
    "snat",
    "vips",
    "zone",
    "no_route",
    "gateway_controller",
    "allow_plain",
    "drain.on_gone",
    "drain.previous_for",
    "bpffs",
    "state",
];

pub(crate) fn run(args: &Load, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let config = inputs::settings(args.config.as_deref())?;
    let (bpffs, state) = (global.bpffs(config.as_ref()), global.state(config.as_ref()));
    let mut settings = config.unwrap_or_default();
    say_left_to_agent(&settings);
    // Left to the agent too, whose proxy would end a reset.
    settings.l7_fallback = L7Fallback::L4;
    let mut reading = inputs::read(&args.files.file, &ReadOptions::default())?;
    if !reading.report.valid() {
        inputs::accept(&reading.report)?;
    }

    let mut node = Node::open(&bpffs, &state).map_err(inputs::node)?;
    let resolve_settings = ResolveSettings {
        names: lookup::look_up([&reading.set]),
        ..settings.resolve_settings(node.assigned().map_err(inputs::node)?)
    };
    let resolved = resolve::resolve(&reading.set, &resolve_settings);
    reading.report.merge(&resolved.diagnostics);
    inputs::accept(&reading.report)?;

    let wanted = Wanted {
        set: &reading.set,
        resolve_settings: &resolve_settings,
        resolved: &resolved,
        settings: &settings,
        interfaces_as_before: false,
    };
    let carried = match node.carry_out(&wanted, &args.attach) {
        Ok(carried) => carried,
        Err(error) => {
            if let Err(error) = node.give_up() {
                output::say(&format!("warning: what was made could not be removed: {error}"));
            }
            return Err(inputs::node(error));
        }
    };
    if let Some(error) = &carried.left {
        output::say(&format!("warning: records of earlier sets are left: {error}"));
    }
    let forwarding = forwarding(args, &settings);
    let sending = node.send_on(forwarding, None).map_err(|error| {
        inputs::kernel(
            error,
            "the set is live, but whether packets may go past the stack cannot be judged",
        )
    })?;
    let source = node.snat().map_err(|error| {
        inputs::kernel(error, "the set is live, but what stands against snat cannot be judged")
    })?;
    let mut outcome = Outcome::new(carried, Told::judged(forwarding, &sending.judged));
    outcome.warn_of_forwarding();
    if let Some((told, findings)) = source {
        outcome.snat = Some(told.into());
        outcome.warn(findings.into_iter().map(|finding| (finding.message, finding.hint)));
    }
    for warning in &outcome.warnings {
        output::say(&format!("warning: {warning}"));
    }
    output::value(form, &outcome, text)
}

/// Where nobody says otherwise it is the stack: a rule of a firewall that comes later would be
/// passed by, since nobody looks again.
fn forwarding(args: &Load, settings: &Settings) -> Forwarding {
    let configured = settings.present.iter().any(|key| key == "forwarding");
    match args.forwarding {
        Some(flag) => flag.into(),
        None if configured => settings.forwarding,
        None => Forwarding::Stack,
    }
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
    forwarding: Told,
    /// `null`: no interface asks for it.
    snat: Option<snat::Told>,
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
    /// What an XDP program does with packets for reals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<&'static str>,
}

impl LinkLine {
    pub(crate) fn new(interface: &str, direction: kernel::Direction, hook: kernel::Hook) -> Self {
        let interface = interface.to_owned();
        Self { interface, direction: direction.name(), hook: hook.name(), mode: None }
    }

    pub(crate) fn of(link: &kernel::Link) -> Self {
        let mode = link.mode.map(kernel::XdpMode::name);
        Self { mode, ..Self::new(&link.interface, link.direction, link.hook) }
    }

    /// The hook, with the mode where there is one.
    pub(crate) fn hook_and_mode(&self) -> String {
        match self.mode {
            Some(mode) => format!("{}, {mode}", self.hook),
            None => self.hook.to_owned(),
        }
    }
}

impl Outcome {
    fn warn_of_forwarding(&mut self) {
        self.warn(self.forwarding.findings(false).into_iter());
    }

    fn warn(&mut self, findings: impl Iterator<Item = (String, String)>) {
        self.warnings.extend(findings.map(|(message, hint)| format!("{message}; {hint}")));
    }

    fn new(carried: Carried, forwarding: Told) -> Self {
        let Carried { first, tables, difference, attached, published, left: _ } = carried;
        let addresses = |keys: &[VipKey]| keys.iter().map(VipKey::to_string).collect::<Vec<_>>();
        let ms = |duration: Duration| (duration.as_secs_f64() * 100_000.0).round() / 100.0;
        let foreign = attached.foreign.iter().map(|program| {
            let line = LinkLine::new(&program.interface, program.direction, program.hook);
            format!(
                "{} ({}) also has the program {} of somebody else; it is not touched",
                line.interface, line.direction, program.name
            )
        });
        let ruled = tables.routes.values().filter(|route| route.flags & route_flags::PROXY != 0);
        let ruled = match ruled.count() {
            0 => None,
            n => Some(format!(
                "{} with HTTP rules, which the proxy of `balancer agent` carries out: while none \
                 runs, `l7_fallback` holds",
                count(n, "route")
            )),
        };
        Self {
            epoch: published.epoch,
            first,
            vips: tables.vips.len(),
            sources: tables.sources.len(),
            routes: tables.routes.len(),
            reals: tables.reals.len(),
            vips_added: addresses(&difference.vips_added),
            vips_removed: addresses(&difference.vips_removed),
            sources_added: difference.sources_added,
            sources_removed: difference.sources_removed,
            tables_written: published.written.tables,
            attached: attached.made.iter().map(LinkLine::of).collect(),
            forwarding,
            snat: None,
            flip_ms: ms(published.flip),
            grace_ms: ms(published.grace),
            warnings: tables
                .warnings
                .iter()
                .cloned()
                .chain(ruled)
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
        let _ = writeln!(
            text,
            "attached: {} {} ({})",
            link.interface,
            link.direction,
            link.hook_and_mode()
        );
    }
    for line in outcome.forwarding.lines() {
        let _ = writeln!(text, "forwarding: {line}");
    }
    if let Some(snat) = &outcome.snat {
        let _ = writeln!(text, "snat: {}", snat.line());
    }
    let _ = writeln!(
        text,
        "new connections met it after {} ms; no packet sees the set before after {} ms more",
        outcome.flip_ms, outcome.grace_ms
    );
    text
}
