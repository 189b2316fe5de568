//! What compile refuses.

use super::LARGEST;
use crate::resolve::VipKey;

/// Something does not fit. Nothing has been written when this is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// More of one thing than the configuration leaves room for.
    #[error("{wanted} {what}{also}, but limits.{limit} is {allowed}: raise it to {needed}",
        also = held_text(*.held))]
    Limit {
        /// The things, in the plural.
        what: &'static str,
        /// How many the policies ask for.
        wanted: u64,
        /// How many more are still held: ids of things that have just gone, or whose flows
        /// still run.
        held: u64,
        /// The key below `limits`.
        limit: &'static str,
        /// Its value.
        allowed: u32,
        /// The value that would do.
        needed: u64,
    },
    /// One route spreads over more reals than a table can name.
    #[error(
        "the route of VIP {vip} (service {service}) spreads over {targets} reals, but one table \
         has {largest} slots at most and names {allowed} reals at most: name fewer backends, or \
         backends with fewer endpoints", largest = LARGEST.slots()
    )]
    Targets {
        /// A VIP with that route.
        vip: VipKey,
        /// Its service.
        service: String,
        /// Reals, each counted once for each backend that it belongs to.
        targets: u64,
        /// The most that a table can name.
        allowed: u64,
    },
}

fn held_text(held: u64) -> String {
    match held {
        0 => String::new(),
        n => format!(" and {n} more that are still being let go"),
    }
}
