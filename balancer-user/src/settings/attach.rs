//! Entries of `attach`.

use super::{AttachRule, Hook, Mode, read::Reader};
use crate::policy::yaml::{Entry, Node, Value};

impl Reader {
    pub(super) fn attach_rule(&mut self, node: &Node, path: &str) -> Option<AttachRule> {
        const KEYS: [&str; 5] = ["interface", "hook", "mode", "generic", "snat"];
        let mut rule = AttachRule {
            interface: String::new(),
            hook: Hook::Tc,
            mode: Mode::Nat,
            generic: false,
            snat: false,
        };
        let flags = [("false", false), ("true", true)];
        for Entry { key, value, .. } in self.mapping(node, path, &KEYS) {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "interface" => self.text(value, &path, &mut rule.interface, |name| {
                    if name.is_empty() {
                        Err("an interface has a name".into())
                    } else {
                        Ok(name.into())
                    }
                }),
                "hook" => {
                    self.word(value, &path, &mut rule.hook, &[("tc", Hook::Tc), ("xdp", Hook::Xdp)])
                }
                "generic" => self.word(value, &path, &mut rule.generic, &flags),
                "snat" => self.word(value, &path, &mut rule.snat, &flags),
                _ => self.word(
                    value,
                    &path,
                    &mut rule.mode,
                    &[("nat", Mode::Nat), ("dsr-ipip", Mode::DsrIpip), ("dsr-l2", Mode::DsrL2)],
                ),
            }
        }
        let of_xdp = |key| format!("{key} is of the hook xdp, and the hook is tc");
        let tc = rule.hook == Hook::Tc;
        let wrong = [
            ("mode", tc && rule.mode != Mode::Nat, of_xdp("mode")),
            ("generic", tc && rule.generic, of_xdp("generic")),
            (
                "snat",
                !tc && rule.snat && rule.mode != Mode::Nat,
                "reals answer clients by themselves in this mode, so they see the clients; write \
                 `mode: nat`, or leave `snat` out"
                    .to_owned(),
            ),
        ];
        for (key, wrong, message) in wrong {
            if let Some(entry) = node.entry(key)
                && wrong
            {
                self.wrong(entry.value.span, &format!("{path}.{key}"), message);
            }
        }
        for key in ["interface", "hook"] {
            if matches!(node.value, Value::Mapping(_)) && node.entry(key).is_none() {
                self.wrong(node.span, &format!("{path}.{key}"), format!("{key} is missing"));
            }
        }
        Some(rule)
    }
}
