//! The plan for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{Against, Report};
use crate::{
    cli::output::{columns, count, printable, share, word},
    plan::{BackendChange, Both, Change, FlowFates, LiveFlows, Moved, RouteChange},
    resolve::PolicyRef,
};

mod rules;

// Writing to a string cannot fail, so the results of `write!` are not looked at below.

/// Lines of one kind that people are shown.
const MOST: usize = 50;

pub(super) fn text(report: &Report) -> String {
    let mut text = against(&report.against);
    let changes = &report.changes;
    if changes.none() {
        let _ = writeln!(
            text,
            "no changes: {} {} as they are",
            count(changes.routes_unchanged, "route"),
            if changes.routes_unchanged == 1 { "stays" } else { "stay" }
        );
    }
    for vip in changes.vips.iter().take(MOST) {
        let _ = writeln!(
            text,
            "{} VIP {} (service {}, mesh {})",
            sign(vip.change),
            vip.vip,
            printable(&vip.service),
            printable(&vip.mesh)
        );
    }
    more(&mut text, changes.vips.len(), "VIPs");
    for source in changes.sources.iter().take(MOST) {
        let class = match source.change {
            Change::Changed => format!("class {} → {}", source.class.before, source.class.after),
            Change::Added => format!("class {}", source.class.after),
            Change::Removed => format!("was of class {}", source.class.before),
        };
        let _ = writeln!(
            text,
            "{} source {} ({}): {class}",
            sign(source.change),
            source.address,
            printable(&source.dataplanes.join(", "))
        );
    }
    more(&mut text, changes.sources.len(), "sources");
    classes(&mut text, "added", &changes.classes_added);
    classes(&mut text, "removed", &changes.classes_removed);
    for change in changes.routes.iter().take(MOST) {
        route(&mut text, change);
    }
    more(&mut text, changes.routes.len(), "routes");
    if changes.routes.iter().any(|route| route.http.is_some()) {
        text.push_str(
            "\nnote: this version has no proxy that carries HTTP rules out; connections get the \
             rest of their route\n",
        );
    }
    if !changes.none() && changes.routes_unchanged > 0 {
        let _ = writeln!(text, "\nunchanged: {}", count(changes.routes_unchanged, "route"));
    }
    if let Some(live) = &changes.flows {
        flows(&mut text, live);
    }
    room(&mut text, report);
    said(&mut text, report);
    text
}

/// Says that a list was cut.
fn more(text: &mut String, all: usize, what: &str) {
    if all > MOST {
        let _ = writeln!(text, "… and {} more {what}; -o json has them all", all - MOST);
    }
}

fn against(against: &Against) -> String {
    match against {
        Against::Live { epoch: 0 } => {
            "compared with what is loaded, to which nothing was published yet\n".to_owned()
        }
        Against::Live { epoch } => format!("compared with what is live (epoch {epoch})\n"),
        Against::Nothing { bpffs } => {
            format!("compared with nothing: nothing is loaded at {}\n", printable(bpffs))
        }
        Against::Files { files } => format!("compared with {}\n", printable(&files.join(", "))),
    }
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}

fn classes(text: &mut String, what: &str, ids: &[u32]) {
    if !ids.is_empty() {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let _ = writeln!(text, "classes {what}: {}", ids.join(", "));
    }
}

fn route(text: &mut String, change: &RouteChange) {
    let _ = writeln!(
        text,
        "\n{} route to {} (service {}) from {}",
        sign(change.change),
        change.vip,
        printable(&change.service),
        printable(&change.from.join(", "))
    );
    let policy = |policy: &Option<PolicyRef>| match policy {
        Some(policy) => format!("{} {}", policy.kind, printable(&policy.name)),
        None => "no policy".to_owned(),
    };
    let mut differ = |what: &str, before: String, after: String| {
        let _ = match change.change {
            Change::Added => writeln!(text, "  {what}: {after}"),
            Change::Removed => writeln!(text, "  {what}: {before}"),
            Change::Changed if before != after => writeln!(text, "  {what}: {before} → {after}"),
            Change::Changed => Ok(()),
        };
    };
    differ("policy", policy(&change.policy.before), policy(&change.policy.after));
    differ("decision", said_or(change.decision.before), said_or(change.decision.after));
    let name = |name: Option<&str>| name.unwrap_or("-").to_owned();
    let balancer = &change.load_balancer;
    differ("load balancer", name(balancer.before), name(balancer.after));
    let slots = |slots: Option<u32>| slots.map_or("no table".to_owned(), |n| n.to_string());
    differ("slots", slots(change.slots.before), slots(change.slots.after));
    let of_connections = change.of_connections();
    if of_connections {
        backends(text, &change.backends);
        if let Some(moved) = &change.moved {
            moving(text, change, moved);
        }
    }
    if let Some(http) = &change.http {
        rules::text(text, http);
        if !of_connections {
            text.push_str("  connections are forwarded as before\n");
        }
    }
    if let Some(fates) = &change.flows {
        let _ = writeln!(text, "  live flows: {}", fates_text(fates));
    }
}

fn moving(text: &mut String, change: &RouteChange, moved: &Moved) {
    let least = percent(moved.least);
    let _ = match (moved.slots, change.slots.after) {
        (Some(slots), Some(of)) => writeln!(
            text,
            "  {slots} of {of} slots move ({}); the shares ask for {least} at least",
            percent(moved.share)
        ),
        _ => writeln!(
            text,
            "  {} of all connections find another slot's real; the shares ask for {least} at least",
            percent(moved.share)
        ),
    };
    if change.rung_changes && moved.by_hash {
        text.push_str(
            "  warning: the table takes another size, so more moves than must; connections \
             without a flow entry go by the table before for `previous_for`\n",
        );
    } else if change.rung_changes {
        text.push_str("  note: the table takes another size\n");
    }
    if !moved.by_hash && moved.share > 0.0 {
        text.push_str("  note: no slot is found by hash, so only the shares matter\n");
    }
}

/// One of two, or how it changes.
fn arrow(before: String, after: String) -> String {
    if before == after { after } else { format!("{before} → {after}") }
}

fn backends(text: &mut String, backends: &[BackendChange]) {
    if backends.is_empty() {
        return;
    }
    let shares = |both: &Both<f64>| arrow(share(both.before), share(both.after));
    let mut lines = vec![["  BACKEND", "WEIGHT", "SHARE", "STATE"].map(str::to_owned).to_vec()];
    for backend in backends {
        let tags: Vec<String> =
            backend.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let tags = if tags.is_empty() { String::new() } else { format!(" {}", tags.join(",")) };
        let weight = |weight: Option<u32>| weight.map_or("-".to_owned(), |n| n.to_string());
        lines.push(vec![
            format!("  {}{}", printable(&backend.service), printable(&tags)),
            arrow(weight(backend.weight.before), weight(backend.weight.after)),
            shares(&backend.share),
            arrow(said_or(backend.state.before), said_or(backend.state.after)),
        ]);
        lines.extend(backend.reals.iter().map(|real| {
            vec![format!("    {}", real.address), String::new(), shares(&real.share), String::new()]
        }));
    }
    text.push_str(&columns(&lines, &[]));
}

fn fates_text(fates: &FlowFates) -> String {
    format!("{} kept, {} draining, {} on a real that goes", fates.kept, fates.draining, fates.gone)
}

fn flows(text: &mut String, live: &LiveFlows) {
    let _ = writeln!(text, "\nlive flows: {}", fates_text(&live.all));
    for real in &live.reals {
        let _ = writeln!(text, "  {}: {}", real.address, fates_text(&real.fates));
    }
    if live.all.gone > 0 {
        text.push_str(
            "  those on a real that goes are reset after 5 s, or kept with `drain.on_gone: keep`\n",
        );
    }
}

fn room(text: &mut String, report: &Report) {
    let mut lines = vec![
        ["SETTING", "OF", "NEEDED", "LIMIT", "KIB NEEDED", "KIB AT LIMIT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    lines.extend(report.room.iter().map(|line| {
        let needed = match line.before == line.needed {
            true => line.needed.to_string(),
            false => format!("{} → {}", line.before, line.needed),
        };
        let kib = |bytes: u64| bytes.div_ceil(1024).to_string();
        vec![
            line.setting.to_owned(),
            line.of.to_owned(),
            needed,
            line.limit.to_string(),
            kib(line.bytes_needed),
            kib(line.bytes_at_limit),
        ]
    }));
    text.push('\n');
    text.push_str(&columns(&lines, &[false, false, true, true, true, true]));
}

fn said(text: &mut String, report: &Report) {
    if !report.findings.is_empty() {
        text.push_str("\nnew findings:\n");
    }
    for finding in &report.findings {
        let place = finding.place.as_deref().map(|place| format!("{}: ", printable(place)));
        let field = match finding.field.as_str() {
            "" => String::new(),
            field => format!("{}: ", printable(field)),
        };
        let _ = writeln!(
            text,
            "  {}{}: {field}{}",
            place.unwrap_or_default(),
            finding.severity,
            printable(&finding.message)
        );
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {}", printable(warning));
    }
}

/// A word as JSON has it; `-` for none.
fn said_or<T: Serialize>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), word)
}

/// With one decimal.
fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}
