//! `vips.protocols`: what VIPs of meshes are dialled with.

use std::num::NonZeroU16;

use super::{
    Settings,
    read::{Reader, number, what},
};
use crate::{
    policy::{
        Diagnostic,
        yaml::{Entry, Node, Value},
    },
    resolve::{ProtocolRule, Resolved, VipProtocol},
};

/// The mesh where a rule names none, as in policies.
const DEFAULT_MESH: &str = "default";

impl Reader {
    pub(super) fn protocols(&mut self, node: &Node, path: &str) -> Vec<ProtocolRule> {
        let rules = self.list(node, path, |reader, node, path| {
            reader.protocol_rule(node, path).map(|rule| (rule, node.span))
        });
        for (at, (rule, span)) in rules.iter().enumerate() {
            if let Some((_, first)) = rules[..at].iter().find(|(other, _)| other == rule) {
                let message = "says the same as an entry before it";
                self.problems.push(
                    Diagnostic::error(format!("{path}[{at}]"), message)
                        .at(*span)
                        .related(*first, "that entry is here"),
                );
            }
        }
        rules.into_iter().map(|(rule, _)| rule).collect()
    }

    fn protocol_rule(&mut self, node: &Node, path: &str) -> Option<ProtocolRule> {
        let before = self.problems.len();
        let entries = self.mapping(node, path, &["mesh", "service", "port", "protocol"]);
        let mut rule = ProtocolRule {
            mesh: DEFAULT_MESH.to_owned(),
            service: String::new(),
            port: None,
            protocol: VipProtocol::Tcp,
        };
        let named = |text: &str| match text {
            "" => Err("nothing has an empty name".to_owned()),
            _ => Ok(text.to_owned()),
        };
        for Entry { key, value, .. } in entries {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "mesh" => self.text(value, &path, &mut rule.mesh, named),
                "service" => self.text(value, &path, &mut rule.service, named),
                "port" => {
                    let read = number(value).and_then(|port| u16::try_from(port).ok());
                    rule.port = read.and_then(NonZeroU16::new);
                    if rule.port.is_none() {
                        let message = format!("{} is no port from 1 to 65535", what(value));
                        self.wrong(value.span, &path, message);
                    }
                }
                _ => {
                    let words = VipProtocol::ALL.map(|protocol| (protocol.name(), protocol));
                    self.word(value, &path, &mut rule.protocol, &words);
                }
            }
        }
        for key in ["service", "protocol"] {
            if matches!(node.value, Value::Mapping(_)) && node.entry(key).is_none() {
                self.wrong(node.span, &format!("{path}.{key}"), format!("{key} is missing"));
            }
        }
        (self.problems.len() == before).then_some(rule)
    }
}

impl Settings {
    /// Entries of `vips.protocols` that mean no VIP of a set, in words.
    pub fn idle_protocols(&self, resolved: &Resolved) -> Vec<String> {
        let idle = self.protocols.iter().enumerate().filter(|(_, rule)| {
            !resolved.vips.iter().any(|vip| rule.means(&vip.destination, vip.key.addr.port()))
        });
        idle.map(|(at, rule)| {
            let path = format!("vips.protocols[{at}]");
            let line = self.positions.get(&format!("{path}.service"));
            let line = line.map_or(String::new(), |span| format!(" (line {})", span.line));
            let port = rule.port.map_or(String::new(), |port| format!(" at port {port}"));
            format!(
                "{path} of the configuration{line} has no effect: no VIP{port} stands for \
                 `{}` of mesh {}; ports of Kubernetes Services say their protocol themselves",
                rule.service, rule.mesh
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use crate::{
        policy::SourceText,
        resolve::{
            ProtocolRule, VipProtocol, resolve,
            tests::world::{self, dataplane, set},
        },
        settings::{Settings, read},
    };

    fn parsed(rules: &str) -> Result<Settings, Vec<String>> {
        let text = format!("vips:\n  protocols:\n{rules}");
        read(&SourceText { name: "c.yaml".to_owned(), text: text.as_str().into() }).map_err(
            |problems| {
                let line =
                    |problem: &crate::policy::Diagnostic| problem.span.map_or(0, |span| span.line);
                let text =
                    problems.iter().map(|p| format!("{}:{}: {}", line(p), p.field, p.message));
                text.collect()
            },
        )
    }

    #[test]
    fn rules_name_a_service_and_how_it_is_dialled() {
        let settings = parsed(
            "  - {service: dns, protocol: udp}\n  - {mesh: edge, service: dns, port: 53, protocol: tcp}\n",
        );
        let rule = |mesh: &str, port, protocol| ProtocolRule {
            mesh: mesh.to_owned(),
            service: "dns".to_owned(),
            port: NonZeroU16::new(port),
            protocol,
        };
        assert_eq!(
            settings.expect("valid").protocols,
            [rule("default", 0, VipProtocol::Udp), rule("edge", 53, VipProtocol::Tcp)]
        );
    }

    #[test]
    fn rules_that_mean_no_vip_are_told_with_their_line() {
        let settings = parsed(
            "  - {service: dns, protocol: udp}\n  - {service: dns, port: 54, protocol: udp}\n  \
             - {service: time, protocol: udp}\n",
        )
        .expect("valid");
        let dns = dataplane("dns", "10.0.0.1").inbound(53, "service=dns");
        let resolved = resolve(&set(vec![dns], vec![]), &world::settings());
        let idle = settings.idle_protocols(&resolved);
        assert_eq!(idle.len(), 2, "{idle:?}");
        assert!(idle[0].starts_with("vips.protocols[1] of the configuration (line 4)"), "{idle:?}");
        assert!(idle[0].contains("no VIP at port 54 stands for `dns` of mesh default"), "{idle:?}");
        assert!(idle[1].contains("no VIP stands for `time` of mesh default"), "{idle:?}");
    }

    #[test]
    fn wrong_rules_are_refused_at_their_place() {
        for (rule, problem) in [
            ("{service: dns}", "3:vips.protocols[0].protocol: protocol is missing"),
            ("{protocol: udp}", "3:vips.protocols[0].service: service is missing"),
            (
                "{service: dns, protocol: sctp}",
                "3:vips.protocols[0].protocol: `sctp` is none of tcp, udp",
            ),
            (
                "{service: dns, protocol: udp, port: 0}",
                "3:vips.protocols[0].port: `0` is no port from 1 to 65535",
            ),
            (
                "{service: dns, protocol: udp, port: 65536}",
                "3:vips.protocols[0].port: `65536` is no port from 1 to 65535",
            ),
            (
                "{service: '', protocol: udp}",
                "3:vips.protocols[0].service: nothing has an empty name",
            ),
            (
                "{service: dns, protocol: udp, ports: 53}",
                "3:vips.protocols[0].ports: the key `ports` is not known",
            ),
        ] {
            let problems = parsed(&format!("  - {rule}\n")).expect_err(rule);
            assert_eq!(problems, [problem], "{rule}");
        }
        let twice = "  - {service: dns, protocol: udp}\n";
        assert_eq!(
            parsed(&twice.repeat(2)).expect_err("twice"),
            ["4:vips.protocols[1]: says the same as an entry before it"]
        );
    }
}
