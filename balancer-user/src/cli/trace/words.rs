//! What `--help` says of `balancer trace`.

use std::{num::NonZeroU32, time::Duration};

use balancer_ebpf::reason::Reason;
use clap::Args;

use crate::{policy::suggest::suggest, settings};

pub(crate) const TRACE_ABOUT: &str = "\
Follow new flows and refused packets as they come, with names.

One line for each connection that begins and for each packet that is dropped or reset, with the \
reason in words. The programs tell of them only while this command runs, and stop by themselves \
within seconds where it is killed; packets of established connections are never looked at. A \
set that is published meanwhile is followed.

One process can trace at a time: a second one is refused with the id of the first.";

pub(crate) const TRACE_AFTER: &str = "\
Examples:
  balancer trace
  balancer trace --drops --from web-1
  balancer trace --new --service redis --sample 100
  balancer trace --reason denied --reason blackhole --for 10m -o json
  balancer trace --count 1 --from 10.0.0.11       wait for the next one

Ends by ctrl-C, --count or --for, with a summary: what was told, left out by sampling, and lost. \
With -o json each line is an object: `event` is `new`, `refused`, `lost` (since the last such \
line) or, at the end, `end`. Times are UTC.

--sample and --rate count before --service and --from are looked at.

Files:
  --bpffs DIR                    the ring buffer that is read; the lock of the one tracer
  --state DIR/live-EPOCH.json    where the names come from

";

#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// Only connections that begin
    #[arg(long = "new", conflicts_with_all = ["drops", "reason"])]
    pub(super) new_flows: bool,
    /// Only packets that are dropped or reset
    #[arg(long, conflicts_with = "reason")]
    pub(super) drops: bool,
    /// Only what met this reason, as `show reasons` names it; as often as needed
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    pub(super) reason: Vec<Reason>,
    /// Only what goes to this service, as `show vips` names it
    #[arg(long, value_name = "SERVICE")]
    pub(super) service: Option<String>,
    /// Only what comes from this Dataplane or address
    #[arg(long, value_name = "DATAPLANE|ADDRESS")]
    pub(super) from: Option<String>,
    /// Of new flows one in N, at random; refused packets are always told of
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) sample: NonZeroU32,
    /// At most N events a second on each CPU, a tenth of them at once; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) rate: u32,
    /// End after so long: 500ms, 5s, 10m, 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = settings::duration)]
    pub(super) duration: Option<Duration>,
    /// End after N events
    #[arg(long, value_name = "N")]
    pub(super) count: Option<NonZeroU32>,
}

/// A reason that events can have.
fn parse_reason(text: &str) -> Result<Reason, String> {
    let told = |reason: &&Reason| reason.begins_flow() || reason.refuses();
    let word = text.replace('-', "_");
    match Reason::ALL.iter().find(|reason| reason.name() == word) {
        Some(reason) if told(&reason) => Ok(*reason),
        Some(_) => Err(format!(
            "packets that met `{word}` are counted (balancer show reasons), not told of one by one"
        )),
        None => {
            let names: Vec<&str> =
                Reason::ALL.iter().filter(told).map(|reason| reason.name()).collect();
            Err(match suggest(&word, names.iter().copied()).first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("there are: {}", names.join(", ")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_no_event_has_are_refused_with_where_they_are_counted() {
        assert_eq!(parse_reason("denied"), Ok(Reason::Denied));
        assert_eq!(parse_reason("flow-lost"), Ok(Reason::FlowLost));
        assert!(parse_reason("established").is_err_and(|said| said.contains("show reasons")));
        assert_eq!(parse_reason("blackhol"), Err("did you mean `blackhole`?".to_owned()));
        assert!(parse_reason("x").is_err_and(|said| said.starts_with("there are: new_flow")));
    }
}
