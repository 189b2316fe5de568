//! The answer for people.

use crate::{
    cli::output::{columns, printable, share, word},
    explain::{
        Answer, BackendAnswer, Layer, PolicyAnswer, RequestAnswer, ResponseAnswer, RouteAnswer,
        RuleAnswer,
    },
};

pub(super) fn text(answer: &Answer) -> String {
    let source = match (&answer.source.dataplane, &answer.source.address) {
        (Some(name), Some(address)) => format!("{} ({address})", printable(name)),
        (Some(name), None) => printable(name),
        (None, Some(address)) => address.clone(),
        (None, None) => "a source with these tags".to_owned(),
    };
    let destination = match &answer.destination.service {
        Some(service) => format!("{} ({})", printable(service), answer.destination.address),
        None => answer.destination.address.clone(),
    };
    let mut text = format!("{source} to {destination}: {}\n", word(answer.decision));
    if let Some(policy) = &answer.policy {
        let decided = answer.layer == Layer::L7 && is_decided(answer);
        let part = match &answer.rule {
            Some(RuleAnswer { index, matches: Some(matched) }) => {
                format!(", rule {index}: {}", printable(&matched.to_string()))
            }
            None if decided => ", which has no rule for it".to_owned(),
            _ => String::new(),
        };
        text += &format!("by {}{part}\n", policy_text(policy));
    }
    let by_connection = answer.layer == Layer::L7 && !is_decided(answer);
    if by_connection {
        text += "this route tells requests apart: describe one with --path and the like, or see --all\n";
    }
    text.extend(answer.request.as_ref().map(request));
    text.extend(answer.response.as_ref().map(response));
    if let Some(load_balancer) = &answer.load_balancer {
        let what = if by_connection { "connections are " } else { "" };
        let slots = load_balancer.slots.map_or(String::new(), |slots| format!(", {slots} slots"));
        text += &format!("{what}spread by {}{slots}\n", load_balancer.kind);
    }
    text += &backends(&answer.backends);
    let routes = answer.routes.as_deref().unwrap_or_default();
    match answer.layer {
        Layer::L4 => text.extend(routes.iter().enumerate().map(|(at, route)| {
            format!("\nroute {}: matches everything\n{}", at + 1, backends(&route.backends))
        })),
        Layer::L7 => text += &every(routes),
    }
    if !answer.steps.is_empty() {
        text += "\nbecause\n";
        text.extend(answer.steps.iter().map(|step| format!("  {}\n", printable(step))));
    }
    text
}

/// A request was described, and the answer is about it.
fn is_decided(answer: &Answer) -> bool {
    answer.request.is_some() || answer.response.is_some()
}

fn policy_text(policy: &PolicyAnswer) -> String {
    let mesh = policy.mesh.as_ref().map(|mesh| format!(" of mesh {}", printable(mesh)));
    format!("{} {}{}", policy.kind, printable(&policy.name), mesh.unwrap_or_default())
}

fn request(request: &RequestAnswer) -> String {
    let RequestAnswer { method, path, host, headers } = request;
    let seen = format!("seen as {method} {}, host {}\n", printable(path), printable(host));
    seen + &header_lines(headers)
}

fn response(response: &ResponseAnswer) -> String {
    let why = response.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let mut text = match response.status {
        Some(status) => format!("answered with {status}{why}\n"),
        None => "the answer is changed\n".to_owned(),
    };
    text += &header_lines(&response.headers);
    text.extend(response.removed.iter().map(|name| format!("  without {}\n", printable(name))));
    text
}

fn header_lines(headers: &[(String, String)]) -> String {
    let line =
        |(name, value): &(String, String)| format!("  {}: {}\n", printable(name), printable(value));
    headers.iter().map(line).collect()
}

/// A line for each real, under its backend's.
fn backends(backends: &[BackendAnswer]) -> String {
    if backends.is_empty() {
        return String::new();
    }
    let head = ["BACKEND", "WEIGHT", "SHARE", "STATE"].map(str::to_owned).to_vec();
    let mut lines = vec![head];
    for backend in backends {
        lines.push(vec![
            name(backend),
            backend.weight.to_string(),
            share(backend.share),
            word(backend.state),
        ]);
        lines.extend(backend.reals.iter().map(|real| {
            vec![format!("  {}", real.address), String::new(), share(real.share), String::new()]
        }));
    }
    format!("\n{}", columns(&lines, &[false, true, true]))
}

fn name(backend: &BackendAnswer) -> String {
    if backend.service.is_empty() {
        return "-".to_owned();
    }
    let tags: Vec<String> =
        backend.tags.iter().map(|(k, v)| format!("{}={}", printable(k), printable(v))).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" {}", tags.join(",")) };
    format!("{}{tags}", printable(&backend.service))
}

/// The matches of HTTP rules as a table; below each what its rule does.
fn every(routes: &[RouteAnswer]) -> String {
    if routes.is_empty() {
        return String::new();
    }
    let heads = ["ROUTE", "HOST", "MATCH", "BACKEND", "SHARE", "STATE", "BY"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    // Lines of the table, and what stands below each.
    let mut below: Vec<&[String]> = vec![&[]];
    for (at, route) in routes.iter().enumerate() {
        let Some(rule) = &route.rule else { continue };
        let matched = match &route.matches {
            Some(matched) => printable(&matched.to_string()),
            None => "anything else".to_owned(),
        };
        let by = rule.policy.as_ref().map_or("-".to_owned(), policy_text);
        let place = rule.rule.map_or(String::new(), |index| format!(", rule {index}"));
        let mut first = vec![(at + 1).to_string(), printable(&rule.hostname), matched, by + &place];
        let answers = route.response.as_ref().and_then(|response| response.status);
        let mut gets: Vec<Vec<String>> = route
            .backends
            .iter()
            .map(|backend| vec![name(backend), share(backend.share), word(backend.state)])
            .collect();
        if gets.is_empty() {
            let what = rule.decision.map_or("-".to_owned(), word);
            let status = answers.map_or(String::new(), |status| format!(" {status}"));
            gets.push(vec![what + &status, "-".to_owned(), "-".to_owned()]);
        }
        let last = gets.len() - 1;
        for (nth, cells) in gets.into_iter().enumerate() {
            let by = first.pop().unwrap_or_default();
            let begin = std::mem::replace(&mut first, vec![String::new(); 3]);
            lines.push([begin, cells, vec![by]].concat());
            first.push(String::new());
            below.push(if nth == last { &rule.filters } else { &[] });
        }
    }
    let table = columns(&lines, &[true, false, false, false, true]);
    let mut text = "\n".to_owned();
    for (line, filters) in table.lines().zip(below) {
        text += &format!("{line}\n");
        text.extend(filters.iter().map(|filter| format!("         {}\n", printable(filter))));
    }
    text
}
