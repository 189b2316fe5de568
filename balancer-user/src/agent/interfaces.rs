//! Which interfaces the configuration means, and attaching to them as they come.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, info, warn};

use super::state::PatternState;
use crate::{
    kernel::{self, Attached, Attachment, KernelError, XdpMode, XdpOptions},
    node::Node,
    settings::{AttachRule, Hook, Mode, PortRange},
};

/// Whether `name` is what `pattern` means; `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = match parts.split_last() {
        Some((last, middle)) => (*last, middle),
        None => ("", &[][..]),
    };
    for part in middle {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Which interface, and how. Another index is another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct How {
    index: u32,
    xdp: Option<XdpOptions>,
    snat: bool,
}

/// Attached interfaces, and what was said of those that are not.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    attached: BTreeMap<String, How>,
    /// Patterns that match nothing, and interfaces that refuse: said once.
    said: BTreeSet<String>,
}

impl Interfaces {
    /// Attaches to whatever the rules mean and is not attached to. True: something changed.
    pub(super) fn follow(
        &mut self,
        node: &mut Node,
        rules: &[AttachRule],
        snat_ports: PortRange,
    ) -> Result<(bool, Vec<PatternState>), KernelError> {
        let present = kernel::interfaces()?;
        let mut wanted: BTreeMap<String, How> = BTreeMap::new();
        let mut states: Vec<PatternState> = Vec::new();
        let mut said = BTreeSet::new();
        for rule in rules {
            let found =
                present.iter().filter(|interface| matches(&rule.interface, &interface.name));
            let names: BTreeMap<String, u32> =
                found.map(|interface| (interface.name.clone(), interface.index)).collect();
            if names.is_empty() {
                said.insert(rule.interface.clone());
                if !self.said.contains(&rule.interface) {
                    warn!(
                        interface = rule.interface,
                        "no interface is called so; it will be attached to when it comes"
                    );
                }
            }
            states.push(PatternState {
                pattern: rule.interface.clone(),
                attached: names.keys().cloned().collect(),
                problems: Vec::new(),
            });
            // Where several rules mean an interface, the first one says how.
            for (name, index) in names {
                wanted.entry(name).or_insert(How { index, xdp: xdp(rule), snat: rule.snat });
            }
        }
        if node.datapath_if_open().is_none() {
            self.said = said;
            states.iter_mut().for_each(|state| state.attached.clear());
            return Ok((false, states));
        }

        let mut changed = false;
        for name in node.forget_gone_interfaces()? {
            info!(interface = name, "the interface is gone");
            changed = true;
        }
        if node.set_snat_ports(snat_ports)? {
            info!(ports = %snat_ports, "reals see other ports: those of the configuration");
        }
        let new: Vec<Attachment> = wanted
            .iter()
            .filter(|(name, how)| self.attached.get(*name) != Some(how))
            .map(|(name, how)| Attachment { interface: name.clone(), xdp: how.xdp, snat: how.snat })
            .collect();
        self.attached.retain(|name, how| wanted.get(name) == Some(how));
        let refused = self.attach(node, &new, &wanted, snat_ports);
        changed |= refused.len() < new.len();
        for (name, problem) in refused {
            let line = format!("{name}: {problem}");
            if !self.said.contains(&line) {
                error!(interface = name, "cannot be attached to: {problem}");
            }
            for state in &mut states {
                let before = state.attached.len();
                state.attached.retain(|attached| *attached != name);
                if state.attached.len() < before {
                    state.problems.push(line.clone());
                }
            }
            said.insert(line);
        }
        self.said = said;
        Ok((changed, states))
    }

    /// All at once; where one refuses, one by one, so that it stands in nobody's way. Returns
    /// those that refuse.
    fn attach(
        &mut self,
        node: &mut Node,
        new: &[Attachment],
        wanted: &BTreeMap<String, How>,
        snat_ports: PortRange,
    ) -> Vec<(String, String)> {
        if new.is_empty() {
            return Vec::new();
        }
        if let Ok(attached) = node.attach(new, Some(snat_ports)) {
            self.note(attached, new, wanted);
            return Vec::new();
        }
        let mut refused = Vec::new();
        for one in new {
            match node.attach(std::slice::from_ref(one), Some(snat_ports)) {
                Ok(attached) => self.note(attached, std::slice::from_ref(one), wanted),
                Err(error) => refused.push((one.interface.clone(), error.to_string())),
            }
        }
        refused
    }

    fn note(&mut self, attached: Attached, new: &[Attachment], wanted: &BTreeMap<String, How>) {
        for link in &attached.made {
            info!(
                interface = link.interface,
                direction = link.direction.name(),
                hook = link.hook.name(),
                mode = link.mode.map(XdpMode::name),
                "attached"
            );
        }
        for link in &attached.adopted {
            info!(
                interface = link.interface,
                direction = link.direction.name(),
                hook = link.hook.name(),
                mode = link.mode.map(XdpMode::name),
                "was attached already"
            );
        }
        for program in &attached.foreign {
            warn!(
                interface = program.interface,
                direction = program.direction.name(),
                hook = program.hook.name(),
                program = program.name,
                "a program of somebody else is there too; it is not touched"
            );
        }
        for warning in &attached.warnings {
            warn!("{warning}");
        }
        for Attachment { interface, .. } in new {
            if let Some(how) = wanted.get(interface) {
                self.attached.insert(interface.clone(), *how);
            }
        }
    }

    /// Takes our programs off interfaces that the rules before meant and these do not.
    pub(super) fn let_go(
        &mut self,
        node: &mut Node,
        before: &[AttachRule],
        now: &[AttachRule],
    ) -> Result<(), KernelError> {
        let meant = |rules: &[AttachRule], name: &str| {
            rules.iter().any(|rule| matches(&rule.interface, name))
        };
        let names: Vec<String> = self
            .attached
            .keys()
            .filter(|name| meant(before, name) && !meant(now, name))
            .cloned()
            .collect();
        for name in names {
            node.detach(&name)?;
            self.attached.remove(&name);
            info!(interface = name, "detached: the configuration does not mean it any more");
        }
        Ok(())
    }
}

/// XDP as a rule asks for it.
fn xdp(rule: &AttachRule) -> Option<XdpOptions> {
    let mode = match rule.mode {
        Mode::Nat => XdpMode::Nat,
        Mode::DsrIpip => XdpMode::DsrIpip,
        Mode::DsrL2 => XdpMode::DsrL2,
    };
    (rule.hook == Hook::Xdp).then_some(XdpOptions { mode, generic: rule.generic })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [
            ("eth0", "eth0"),
            ("veth*", "veth"),
            ("veth*", "veth1a2b"),
            ("*", "lo"),
            ("*-ext", "a-ext"),
            ("v*-*-x", "v1-2-x"),
            ("a*b*b", "axbxb"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("eth0", "eth01"), ("veth*", "eth0"), ("*-ext", "ext"), ("a*b*b", "ab"), ("a*a", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
