//! `show flows`: live connections.

use balancer_ebpf::abi::flow_state;
use serde::Serialize;

use super::{Rows, failed};
use crate::{
    cli::{failure::Failure, live::LiveSet},
    kernel::FlowRow,
};

#[derive(Serialize)]
struct FlowLine {
    client: String,
    vip: String,
    service: Option<String>,
    /// `null`: its id has another real's generation by now.
    real: Option<String>,
    /// The client as the real sees it; `null`: as it is.
    seen_as: Option<String>,
    backend: Option<String>,
    state: &'static str,
    /// Since a packet was last seen, to the second.
    idle_s: u64,
}

/// At most `limit` flows in the order of their clients.
pub(super) fn rows(live: &LiveSet, limit: usize) -> Result<Rows, Failure> {
    let mut flows = live.connections().map_err(failed)?;
    let all = flows.len();
    flows.truncate(if limit == 0 { all } else { limit });
    let reals = live.addresses_of_reals().map_err(failed)?;
    let backends = live.names.backends_of_counters();
    let lines = flows
        .iter()
        .map(|flow| FlowLine {
            client: flow.src.to_string(),
            vip: flow.vip.to_string(),
            service: live.names.vip(flow.vip).map(|vip| vip.destination.to_string()),
            real: reals.get(&(flow.flow.real, flow.flow.generation)).map(ToString::to_string),
            seen_as: flow.seen_as().map(|seen| seen.to_string()),
            backend: backends.get(&flow.flow.counter).cloned(),
            state: state(flow),
            idle_s: flow.idle.as_secs(),
        })
        .collect();
    let mut rows = Rows::of::<FlowLine>(lines, "no connection is tracked")?;
    rows.note = (flows.len() < all)
        .then(|| format!("{} of {all} flows printed; --limit 0 prints all", flows.len()));
    Ok(rows)
}

fn state(flow: &FlowRow) -> &'static str {
    let has = |bits: u8| flow.flow.state & bits != 0;
    let both = flow_state::CLIENT_FIN | flow_state::REAL_FIN;
    if has(flow_state::RESET) {
        "reset"
    } else if flow.flow.state & both == both {
        "closed"
    } else if has(both) {
        "closing"
    } else if flow.half_open {
        "half_open"
    } else if has(flow_state::ADOPTED) {
        "adopted"
    } else {
        "established"
    }
}
