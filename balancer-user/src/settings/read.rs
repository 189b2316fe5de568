//! The file's text into [`Settings`], with the position of whatever is wrong.

use std::{collections::BTreeMap, num::NonZeroU32};

use super::{
    Drain, Forwarding, L7Fallback, LogForm, LogLevel, NewFlows, OnGone, PortRange, ProxyMark,
    Settings, proxy, values,
};
use crate::{
    compile::Limits,
    policy::{
        Diagnostic, SourceText, Span,
        suggest::suggest,
        yaml::{self, Entry, Node, Value},
    },
    proxy::Forwarded,
    resolve::NoRoute,
};

pub(super) const KEYS: &[&str] = &[
    "policies",
    "attach",
    "forwarding",
    "snat",
    "vips",
    "zone",
    "no_route",
    "gateway_controller",
    "allow_plain",
    "drain",
    "l7_fallback",
    "proxy",
    "limits",
    "dns",
    "log",
    "metrics",
    "api",
    "bpffs",
    "state",
];

/// Reads a configuration file. An empty one is all defaults.
///
/// # Errors
/// Everything that is wrong with it, in the order of positions; spans are of document 0.
pub fn read(text: &SourceText) -> Result<Settings, Vec<Diagnostic>> {
    let mut documents = yaml::documents(&text.text, 0);
    let mut reader = Reader::default();
    if documents.len() > 1 {
        let second = documents.swap_remove(1);
        reader.problems.push(
            Diagnostic::error("", "a configuration file has one document, this is a second one")
                .at(second.span)
                .hint("move its keys into the first, or its documents into a policy file"),
        );
    }
    let mut settings = Settings::default();
    if let Some(document) = documents.into_iter().next() {
        reader.problems.extend(document.problems);
        if let Some(root) = &document.root {
            reader.settings(root, &mut settings);
        }
    }
    if reader.problems.is_empty() {
        return Ok(settings);
    }
    reader.problems.sort_by_key(|problem| problem.span);
    Err(reader.problems)
}

#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Diagnostic>,
    present: Vec<String>,
    positions: BTreeMap<String, Span>,
}

impl Reader {
    fn settings(&mut self, root: &Node, settings: &mut Settings) {
        for Entry { key, value, .. } in self.mapping(root, "", KEYS) {
            self.present.push(key.clone());
            match key.as_str() {
                "policies" => settings.policies = self.list(value, key, Self::path_list_item),
                "attach" => settings.attach = self.list(value, key, Self::attach_rule),
                "forwarding" => self.word(
                    value,
                    key,
                    &mut settings.forwarding,
                    &[
                        ("auto", Forwarding::Auto),
                        ("stack", Forwarding::Stack),
                        ("direct", Forwarding::Direct),
                    ],
                ),
                "snat" => {
                    for Entry { value, .. } in self.mapping(value, "snat", &["ports"]) {
                        self.text(value, "snat.ports", &mut settings.snat_ports, PortRange::parse);
                    }
                }
                "vips" => {
                    const KEYS: &[&str] = &["ipv4", "ipv6", "protocols"];
                    for Entry { key, value, .. } in self.mapping(value, "vips", KEYS) {
                        let path = format!("vips.{key}");
                        match key.as_str() {
                            "ipv4" => self.text(value, &path, &mut settings.vips4, values::range4),
                            "ipv6" => self.text(value, &path, &mut settings.vips6, values::range6),
                            _ => settings.protocols = self.protocols(value, &path),
                        }
                    }
                }
                "zone" => self.text(value, key, &mut settings.zone, |zone| {
                    if zone.is_empty() {
                        Err("a zone has a name".into())
                    } else {
                        Ok(Some(zone.into()))
                    }
                }),
                "no_route" => self.word(
                    value,
                    key,
                    &mut settings.no_route,
                    &[("direct", NoRoute::Direct), ("deny", NoRoute::Deny)],
                ),
                "gateway_controller" => {
                    self.text(value, key, &mut settings.gateway_controller, values::controller)
                }
                "allow_plain" => self.word(
                    value,
                    key,
                    &mut settings.allow_plain,
                    &[("false", false), ("true", true)],
                ),
                "drain" => self.drain(value, &mut settings.drain),
                "l7_fallback" => self.word(
                    value,
                    key,
                    &mut settings.l7_fallback,
                    &[("l4", L7Fallback::L4), ("reset", L7Fallback::Reset)],
                ),
                "proxy" => {
                    const KEYS: &[&str] =
                        &["shards", "forwarded", "via", "mark", "table", "limits"];
                    for Entry { key, value, .. } in self.mapping(value, key, KEYS) {
                        self.proxy(key, value, settings);
                    }
                }
                "limits" => self.limits(value, settings),
                "dns" => {
                    for Entry { value, .. } in self.mapping(value, "dns", &["servers"]) {
                        settings.dns_servers = self.list(value, "dns.servers", Self::dns_server);
                    }
                }
                "log" => self.log(value, settings),
                "metrics" => self.text(value, key, &mut settings.metrics, |text| {
                    text.parse().map(Some).map_err(|_| {
                        format!("`{text}` is no address and port; write it like `127.0.0.1:9901`")
                    })
                }),
                "api" => {
                    for Entry { value, .. } in self.mapping(value, "api", &["socket"]) {
                        self.text(value, "api.socket", &mut settings.api_socket, values::path);
                    }
                }
                "bpffs" => self.text(value, key, &mut settings.bpffs, values::path),
                "state" => self.text(value, key, &mut settings.state, values::path),
                // `mapping` gives known keys only.
                _ => {}
            }
        }
        // Of these two, keys differ in who uses them: they are listed one by one.
        settings.present = std::mem::take(&mut self.present);
        settings.present.retain(|key| !matches!(key.as_str(), "drain" | "limits"));
        settings.positions = std::mem::take(&mut self.positions);
    }

    fn proxy(&mut self, key: &str, value: &Node, settings: &mut Settings) {
        let path = &format!("proxy.{key}");
        match key {
            "shards" => self.text(value, path, &mut settings.proxy_shards, proxy::shards),
            "forwarded" => self.word(
                value,
                path,
                &mut settings.proxy_added.forwarded,
                &[
                    ("append", Forwarded::Append),
                    ("replace", Forwarded::Replace),
                    ("keep", Forwarded::Keep),
                ],
            ),
            "via" => self.word(
                value,
                path,
                &mut settings.proxy_added.via,
                &[("false", false), ("true", true)],
            ),
            "mark" => self.text(value, path, &mut settings.proxy_mark, ProxyMark::parse),
            "limits" => self.proxy_limits(value, path, &mut settings.proxy_limits),
            _ => self.text(value, path, &mut settings.proxy_table, proxy::table),
        }
    }

    fn drain(&mut self, node: &Node, drain: &mut Drain) {
        const KEYS: &[&str] = &["deadline", "on_gone", "previous_for"];
        for Entry { key, value, .. } in self.mapping(node, "drain", KEYS) {
            let path = format!("drain.{key}");
            match key.as_str() {
                "deadline" => self.text(value, &path, &mut drain.deadline, |text| match text {
                    "none" => Ok(None),
                    _ => values::duration(text).map(Some).map_err(|e| e + ", or `none`"),
                }),
                "on_gone" => self.word(
                    value,
                    &path,
                    &mut drain.on_gone,
                    &[("reset", OnGone::Reset), ("keep", OnGone::Keep)],
                ),
                _ => self.text(value, &path, &mut drain.previous_for, values::duration),
            }
            self.present.push(path);
        }
    }

    fn log(&mut self, node: &Node, settings: &mut Settings) {
        for Entry { key, value, .. } in self.mapping(node, "log", &["format", "level"]) {
            match key.as_str() {
                "format" => self.word(
                    value,
                    "log.format",
                    &mut settings.log.form,
                    &[("text", LogForm::Text), ("json", LogForm::Json)],
                ),
                _ => self.word(
                    value,
                    "log.level",
                    &mut settings.log.level,
                    &[
                        ("error", LogLevel::Error),
                        ("warn", LogLevel::Warn),
                        ("info", LogLevel::Info),
                        ("debug", LogLevel::Debug),
                    ],
                ),
            }
        }
    }

    fn dns_server(&mut self, node: &Node, path: &str) -> Option<std::net::SocketAddr> {
        let mut server = None;
        self.text(node, path, &mut server, |text| values::dns_server(text).map(Some));
        server
    }

    fn limits(&mut self, node: &Node, settings: &mut Settings) {
        let mut limits = Limits::default();
        let fields: [(&str, &mut u32); 8] = [
            ("flows", &mut limits.flows),
            ("half_open", &mut limits.half_open),
            ("services", &mut limits.services),
            ("sources", &mut limits.sources),
            ("routes", &mut limits.routes),
            ("reals", &mut limits.reals),
            ("counters", &mut limits.counters),
            ("arena_slots", &mut limits.arena_slots),
        ];
        let keys: Vec<&str> = fields.iter().map(|(key, _)| *key).chain(["new_flows"]).collect();
        let entries = self.mapping(node, "limits", &keys);
        let mut sizes = entries.is_empty();
        for (key, field) in fields {
            let Some(entry) = entries.iter().find(|entry| entry.key == key) else { continue };
            let path = format!("limits.{key}");
            match number(&entry.value) {
                Some(0) => self.wrong(entry.value.span, &path, "0 holds nothing; the least is 1"),
                Some(number) => *field = number,
                None => self.wrong(
                    entry.value.span,
                    &path,
                    format!("{} is no whole number from 1 to {}", what(&entry.value), u32::MAX),
                ),
            }
            self.present.push(path);
            sizes = true;
        }
        if let Some(entry) = entries.iter().find(|entry| entry.key == "new_flows") {
            let path = "limits.new_flows".to_owned();
            match (number(&entry.value).map(NonZeroU32::new), what(&entry.value).as_str()) {
                (Some(None), _) | (None, "`off`") => settings.new_flows = NewFlows::Any,
                (Some(Some(number)), _) => settings.new_flows = NewFlows::AtMost(number),
                (None, what) => self.wrong(
                    entry.value.span,
                    &path,
                    format!("{what} is no whole number up to {}, and not `off`", u32::MAX),
                ),
            }
            self.present.push(path);
        }
        // It is no size of a map: a file that has it alone leaves those as they are.
        settings.limits = sizes.then_some(limits);
    }

    fn path_list_item(&mut self, node: &Node, path: &str) -> Option<std::path::PathBuf> {
        let mut item = None;
        self.text(node, path, &mut item, |text| values::path(text).map(Some));
        item
    }

    /// The entries of a mapping whose keys are known; the others are reported.
    pub(super) fn mapping<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        known: &[&str],
    ) -> Vec<&'n Entry> {
        let Value::Mapping(entries) = &node.value else {
            let example = known.first().copied().unwrap_or_default();
            self.wrong(
                node.span,
                path,
                format!("{} where keys belong; write it like `{example}: …`", what(node)),
            );
            return Vec::new();
        };
        let (known_entries, unknown): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| known.contains(&entry.key.as_str()));
        for entry in unknown {
            let problem = Diagnostic::error(
                yaml::key_path(path, &entry.key),
                format!("the key `{}` is not known", entry.key),
            )
            .at(entry.key_span);
            self.problems.push(match suggest(&entry.key, known.iter().copied()).first() {
                Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
                None => problem.hint(format!("known here: {}", known.join(", "))),
            });
        }
        for entry in &known_entries {
            self.positions.insert(yaml::key_path(path, &entry.key), entry.value.span);
        }
        known_entries
    }

    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        path: &str,
        item: impl Fn(&mut Self, &Node, &str) -> Option<T>,
    ) -> Vec<T> {
        let Value::Sequence(items) = &node.value else {
            self.wrong(node.span, path, format!("{} where a list belongs", what(node)));
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .filter_map(|(at, node)| item(self, node, &format!("{path}[{at}]")))
            .collect()
    }

    /// A string that `parse` understands.
    pub(super) fn text<T>(
        &mut self,
        node: &Node,
        path: &str,
        field: &mut T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) {
        match &node.value {
            Value::Scalar(scalar) if !node.is_null() => match parse(&scalar.text) {
                Ok(value) => *field = value,
                Err(message) => self.wrong(node.span, path, message),
            },
            _ => self.wrong(node.span, path, format!("{} where text belongs", what(node))),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        field: &mut T,
        words: &[(&str, T)],
    ) {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        match &node.value {
            Value::Scalar(scalar) => match words.iter().find(|(name, _)| *name == scalar.text) {
                Some((_, value)) => *field = *value,
                None => self.wrong(
                    node.span,
                    path,
                    format!("{} is none of {}", what(node), names.join(", ")),
                ),
            },
            _ => self.wrong(
                node.span,
                path,
                format!("{} where one of {} belongs", what(node), names.join(", ")),
            ),
        }
    }

    pub(super) fn wrong(&mut self, span: Span, path: &str, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(path, message).at(span));
    }
}

/// A plain decimal number; underscores may part its digits.
pub(super) fn number(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Scalar(scalar) if scalar.plain => scalar.text.replace('_', "").parse().ok(),
        _ => None,
    }
}

/// What stands there, for people.
pub(super) fn what(node: &Node) -> String {
    match &node.value {
        _ if node.is_null() => "nothing".to_owned(),
        Value::Scalar(scalar) => format!("`{}`", scalar.text),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
