//! How packets are sent on, as `load` and `status` tell it.

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    kernel::{Asked, Judged, KernelError, Obstacle, View},
    settings::Forwarding,
};

/// `--forwarding`.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Flag {
    Auto,
    Stack,
    Direct,
}

impl From<Flag> for Forwarding {
    fn from(flag: Flag) -> Self {
        match flag {
            Flag::Auto => Self::Auto,
            Flag::Stack => Self::Stack,
            Flag::Direct => Self::Direct,
        }
    }
}

/// All of it; names of fields are those of `-o json`.
#[derive(Default, Serialize)]
pub(crate) struct Told {
    /// `auto`, `stack` or `direct`: what was asked for.
    asked: &'static str,
    interfaces: Vec<Line>,
}

/// An interface with programs of ours.
#[derive(Serialize)]
struct Line {
    interface: String,
    /// `direct`: past the stack, to and from others of which the same is said.
    way: &'static str,
    /// What is sent to it is put into the namespace of its other end at once.
    peer: bool,
    /// What stands against `direct`; with `direct`: who misses packets.
    why: Vec<String>,
}

impl Told {
    /// As it was judged just now.
    pub(crate) fn judged(forwarding: Forwarding, judged: &[Judged]) -> Self {
        let line = |one: &Judged| Line {
            interface: one.interface.clone(),
            way: way(one.direct),
            peer: one.peer,
            why: one.obstacles.iter().map(Obstacle::to_string).collect(),
        };
        Self { asked: forwarding.name(), interfaces: judged.iter().map(line).collect() }
    }

    /// As the programs do it, and why.
    pub(crate) fn live(view: &View, agent_runs: bool) -> Result<Self, KernelError> {
        let now = view.forwarding()?;
        let forwarding = match now.asked {
            Asked::Auto => Forwarding::Auto,
            Asked::Stack => Forwarding::Stack,
            Asked::Direct => Forwarding::Direct,
        };
        let judged = view.hooked()?.judge(now.asked);
        let mut told = Self::judged(forwarding, &judged);
        for (line, judged) in told.interfaces.iter_mut().zip(&judged) {
            let does = now.direct.get(&judged.index);
            (line.way, line.peer) = (way(does.is_some()), does.is_some_and(|peer| *peer));
            if does.is_none() && judged.direct {
                let why = match (agent_runs, now.ended) {
                    (true, _) => "nothing any more, but the agent has not looked since",
                    (false, true) => "no agent looks for rules that come",
                    (false, false) => {
                        "nothing any more, but `load`, or an agent, has not looked since"
                    }
                };
                line.why = vec![why.to_owned()];
            }
        }
        Ok(told)
    }

    /// What a person should look at, and what to do.
    pub(crate) fn findings(&self, agent_runs: bool) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        for (names, line) in self.grouped() {
            if line.way == "direct" && !line.why.is_empty() {
                findings.push((
                    format!(
                        "packets of {names} go past the stack, and past this: {}",
                        line.why.join("; ")
                    ),
                    match (self.asked, agent_runs) {
                        ("auto", false) => "load again, or run the agent, which looks after rules",
                        ("auto", true) => "nothing: the agent is about to see it",
                        _ => "write `forwarding: auto` or `stack`",
                    }
                    .to_owned(),
                ));
            }
        }
        if self.asked == "auto" && !agent_runs && self.interfaces.iter().any(|l| l.way == "direct")
        {
            findings.push((
                "packets go past the stack, and no agent looks for firewall rules that come"
                    .to_owned(),
                "run the agent, or `balancer load --forwarding stack` before adding rules"
                    .to_owned(),
            ));
        }
        findings
    }

    /// A line for all interfaces of which the same is said.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.asked == "stack" {
            return vec!["stack".to_owned()];
        }
        let grouped = self.grouped().into_iter();
        grouped.map(|(names, line)| format!("{names} {}", line.words())).collect()
    }

    /// Cells of a table: interface, way, why.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |line: &Line| {
            let way = if line.peer { "direct, into its namespace" } else { line.way };
            vec![line.interface.clone(), way.to_owned(), line.why.join("; ")]
        };
        self.interfaces.iter().map(row).collect()
    }

    /// What was asked for.
    pub(crate) fn asked(&self) -> &'static str {
        self.asked
    }

    fn grouped(&self) -> Vec<(String, &Line)> {
        let mut groups: Vec<(Vec<&str>, &Line)> = Vec::new();
        for line in &self.interfaces {
            let same = |other: &Line| (other.way, &other.why) == (line.way, &line.why);
            match groups.iter_mut().find(|(_, other)| same(other)) {
                Some((names, _)) => names.push(&line.interface),
                None => groups.push((vec![&line.interface], line)),
            }
        }
        groups.into_iter().map(|(names, line)| (names.join(", "), line)).collect()
    }
}

impl Line {
    fn words(&self) -> String {
        match (self.way, self.why.as_slice()) {
            (way, []) => way.to_owned(),
            ("direct", why) => format!("direct, past {}", why.join("; ")),
            (way, why) => format!("{way}: {}", why.join("; ")),
        }
    }
}

fn way(direct: bool) -> &'static str {
    if direct { "direct" } else { "stack" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(interface: &str, direct: bool, obstacles: &[Obstacle]) -> Judged {
        let (interface, obstacles) = (interface.to_owned(), obstacles.to_vec());
        Judged { interface, index: 1, direct, peer: direct, obstacles }
    }

    #[test]
    fn interfaces_of_which_the_same_is_said_share_a_line() {
        let told = Told::judged(
            Forwarding::Auto,
            &[
                judged("v-a", true, &[]),
                judged("v-b", false, &[Obstacle::Conntrack, Obstacle::Part]),
                judged("v-c", true, &[]),
            ],
        );
        assert_eq!(
            told.lines(),
            [
                "v-a, v-c direct",
                "v-b stack: conntrack follows connections; it is part of another interface",
            ]
        );
        assert_eq!(told.findings(true), []);
        assert_eq!(told.findings(false).len(), 1, "nobody looks after rules");
    }

    #[test]
    fn whoever_misses_packets_of_a_forced_interface_is_a_finding() {
        let told = Told::judged(Forwarding::Direct, &[judged("v-a", true, &[Obstacle::Conntrack])]);
        let (message, hint) = told.findings(false).remove(0);
        assert_eq!(
            message,
            "packets of v-a go past the stack, and past this: conntrack follows connections"
        );
        assert_eq!(hint, "write `forwarding: auto` or `stack`");
    }
}
