//! What hangs on an interface, as the kernel tells anybody who asks: not as balancer does.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, TcAttachType};

use crate::{feature::Feature, shell::Shell};

/// The filters of an interface of the calling thread's namespace, both ways, as `tc` lists them.
pub fn filters(interface: &str) -> Result<String> {
    let list = |side| Shell::silent().run(&format!("tc filter show dev {interface} {side}"));
    Ok(list("ingress")? + &list("egress")?)
}

/// The qdiscs of an interface of the calling thread's namespace, as `tc` lists them.
pub fn qdiscs(interface: &str) -> Result<String> {
    Shell::silent().run(&format!("tc qdisc show dev {interface}"))
}

/// Ids of all BPF programs on an interface of the calling thread's namespace: tcx links, where
/// the kernel has them, and filters.
pub fn programs(interface: &str) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    if Feature::Tcx.is_here() {
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, programs) = SchedClassifier::query_tcx(interface, side)
                .with_context(|| format!("cannot ask for the tcx programs of {interface}"))?;
            found.extend(programs.iter().map(|program| program.id()));
        }
    }
    for side in ["ingress", "egress"] {
        let line = format!("tc -json filter show dev {interface} {side}");
        let text = Shell::silent().run(&line)?;
        let filters: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("not JSON: the output of `{line}`\n{text}"))?;
        let filters = filters.as_array().with_context(|| format!("no list: {text}"))?;
        let ids = filters.iter().filter_map(|filter| filter["options"]["prog"]["id"].as_u64());
        for id in ids {
            found.insert(u32::try_from(id)?);
        }
    }
    Ok(found)
}
