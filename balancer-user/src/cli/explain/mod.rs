//! `balancer explain`: where a connection would go, and why.

use balancer_ebpf::abi::direction;
use serde::Serialize;

use super::{
    args::{Explain, Form, Global},
    failure::Failure,
    inputs, live, lookup,
    output::{self, printable},
    values::Tuple,
};
use crate::{
    compile::{self, Assignment},
    explain::{self, Answer, Input, Query, RequestQuery},
    kernel,
    policy::ReadOptions,
    resolve::{self, ResolveSettings, VipAssignments, VipKey, VipProtocol},
    store::{Store, StoreError},
};

mod text;

pub(crate) fn run(args: &Explain, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts {
        return Err(output::hosts_refused());
    }
    if let Some(tuple) = &args.tuple {
        return ask(tuple, args.protocol.unwrap_or_default(), global);
    }
    let request = RequestQuery {
        method: args.method.clone(),
        path: args.path.clone(),
        host: args.host.clone(),
        headers: args.header.clone(),
    };
    let query = Query {
        from: args.from.clone().unwrap_or_default(),
        to: args.to.clone().unwrap_or_default(),
        request: (request != RequestQuery::default()).then_some(request),
        all: args.all,
        protocol: args.protocol,
    };
    let answer = if args.file.is_empty() {
        live::read(global, |live| {
            let names = &live.names;
            let Some(settings) = &names.settings else {
                return Err(live::no_record(global, "cannot explain the live set"));
            };
            let tables = Some(&names.tables);
            let input = Input { set: &names.set, settings, resolved: &names.resolved, tables };
            explained(&input, &query)
        })?
    } else {
        from_files(args, global, &query)?
    };
    output::value(form, &answer, text::text)
}

fn explained(input: &Input<'_>, query: &Query) -> Result<Answer, Failure> {
    explain::explain(input, query).map_err(|error| {
        let meant = error.candidates.join(", ");
        let hint = (!meant.is_empty()).then(|| format!("did you mean {meant}?"));
        Failure::usage(error.message).maybe_hint(hint)
    })
}

fn from_files(args: &Explain, global: &Global, query: &Query) -> Result<Answer, Failure> {
    let config = inputs::settings(args.config.as_deref())?;
    let state = global.state(config.as_ref());
    let settings = config.unwrap_or_default();
    let mut reading = inputs::read(&args.file, &ReadOptions::default())?;
    if !reading.report.valid() {
        inputs::accept(&reading.report)?;
    }
    let resolve_settings = ResolveSettings {
        names: lookup::look_up([&reading.set]),
        ..settings.resolve_settings(assignments(&state)?)
    };
    let resolved = resolve::resolve(&reading.set, &resolve_settings);
    reading.report.merge(&resolved.diagnostics);
    inputs::accept(&reading.report)?;
    let limits = settings.limits.unwrap_or_default();
    let tables = compile::compile(&resolved, &Assignment::default(), &limits)
        .map_err(|error| Failure::policies(error).hint("name larger limits with --config"))?;
    explained(
        &Input {
            set: &reading.set,
            settings: &resolve_settings,
            resolved: &resolved,
            tables: Some(&tables),
        },
        query,
    )
}

/// VIPs as `load` would find them, so that addresses are those of this node. Who may not read
/// the state directory still gets an answer, and is told what may differ.
pub(crate) fn assignments(state: &std::path::Path) -> Result<VipAssignments, Failure> {
    match Store::open(state).and_then(|store| store.assignments()) {
        Err(StoreError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            output::say(&format!(
                "note: {} cannot be read, so VIPs are allocated as on a new node",
                state.display()
            ));
            Ok(VipAssignments::new())
        }
        other => other.map_err(inputs::store),
    }
}

/// What the loaded program says of one connection.
#[derive(Serialize)]
struct ProgramAnswer {
    source: String,
    destination: String,
    protocol: &'static str,
    /// The service of the VIP dialled; `null`: no VIP.
    service: Option<String>,
    reason: &'static str,
    meaning: &'static str,
    /// Where the first packet would go; `null`: it is not sent on.
    sent_to: Option<String>,
    /// What the destination would see as its peer; `null`: it is not sent on, or that depends on
    /// the interface by which it comes (`snat`).
    seen_from: Option<String>,
}

fn ask(tuple: &Tuple, protocol: VipProtocol, global: &Global) -> Result<(), Failure> {
    use balancer_ebpf::reason::Fate;
    let answer = live::read(global, |live| {
        let answer = live
            .view
            .ask(&kernel::Tuple { src: tuple.src, dst: tuple.dst, protocol })
            .map_err(|error| inputs::kernel(error, "cannot ask the program"))?;
        let sent = matches!(answer.reason.fate(), Fate::Forward | Fate::Pass);
        Ok(ProgramAnswer {
            source: tuple.src.to_string(),
            destination: tuple.dst.to_string(),
            protocol: protocol.name(),
            service: live
                .names
                .vip(VipKey { addr: tuple.dst, protocol })
                .map(|vip| vip.destination.to_string()),
            reason: answer.reason.name(),
            meaning: answer.reason.text().trim_end_matches('.'),
            sent_to: sent.then(|| answer.destination.to_string()),
            seen_from: if sent { seen_from(&live.view, tuple, protocol, &answer)? } else { None },
        })
    })?;
    output::value(global.output, &answer, |answer| {
        let service =
            answer.service.as_ref().map_or(String::new(), |s| format!(" ({})", printable(s)));
        let sent = match &answer.sent_to {
            Some(to) if *to == answer.destination => "left as it is".to_owned(),
            Some(to) => format!("sent to {to}"),
            None => "not sent on".to_owned(),
        };
        format!(
            "{} to {}{service}: {sent}\nreason: {} ({})\n",
            answer.source, answer.destination, answer.reason, answer.meaning
        )
    })
}

/// The program is asked with a packet that comes in by no interface of `snat`: what becomes of its
/// source is known of live connections alone.
fn seen_from(
    view: &kernel::View,
    tuple: &Tuple,
    protocol: VipProtocol,
    answer: &kernel::Answer,
) -> Result<Option<String>, Failure> {
    let failed = |error| inputs::kernel(error, "cannot read live connections");
    let said = Some(answer.source.to_string());
    if answer.reason.begins_flow() {
        return Ok(if view.snat().map_err(failed)?.is_some() { None } else { said });
    }
    if answer.destination == tuple.dst {
        return Ok(said);
    }
    let flows = view.flows().map_err(failed)?;
    let live = flows.iter().find(|flow| {
        (flow.direction, flow.src, flow.dst, flow.vip.protocol)
            == (direction::FORWARD, tuple.src, tuple.dst, protocol)
    });
    Ok(live.map_or(said, |flow| Some(flow.seen_as().unwrap_or(flow.src).to_string())))
}
