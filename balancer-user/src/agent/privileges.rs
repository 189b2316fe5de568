//! Capabilities (capabilities(7)): what later work needs is kept, the rest is given up for good.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// Maps and links; hooks, filters and the network's state; making programs and maps where
/// nothing was loaded when the agent began.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// What is left, and what could not be given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reduced {
    /// Names of the capabilities in the permitted set, sorted.
    pub(crate) kept: Vec<String>,
    /// What failed.
    pub(crate) problems: Vec<String>,
}

/// Reduces the capabilities of the calling thread and of every thread that it starts later.
///
/// Pinned maps must be open already: opening the chunks of the arena by their ids needs
/// CAP_SYS_ADMIN.
pub(crate) fn reduce() -> Reduced {
    let mut reduced = Reduced::default();
    let mut tried = |what: &str, outcome: Result<(), CapsError>| {
        if let Err(error) = outcome {
            reduced.problems.push(format!("{what}: {error}"));
        }
    };
    // The bounding set first: it takes CAP_SETPCAP, which goes with the others.
    for capability in caps::all() {
        let there = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if there && !KEPT.contains(&capability) {
            tried("the bounding set", caps::drop(None, CapSet::Bounding, capability));
        }
    }
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = permitted.into_iter().filter(|c| KEPT.contains(c)).collect();
    let none = CapsHashSet::new();
    tried("the ambient set", caps::clear(None, CapSet::Ambient));
    tried("the inheritable set", caps::set(None, CapSet::Inheritable, &none));
    tried("the effective set", caps::set(None, CapSet::Effective, &kept));
    tried("the permitted set", caps::set(None, CapSet::Permitted, &kept));
    reduced.problems.dedup();
    reduced.kept = caps::read(None, CapSet::Permitted)
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    reduced.kept.sort();
    reduced
}
