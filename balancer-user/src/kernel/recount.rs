//! Live connections, counted anew: what an eviction took away without a word.
//!
//! The programs count a connection up when its handshake completes and down when it closes. An
//! entry that the kernel evicts, or a flow of UDP that falls silent, is not counted down by
//! anybody. So the entries themselves are counted now and then.

use std::collections::HashMap;

use balancer_ebpf::{
    abi::{REAL_FIRST, direction, flow_state},
    datagram, tcp_state,
};

use crate::resolve::VipProtocol;

use super::{Datapath, KernelError, View, flows::FlowRow, read::now};

/// What a recount has put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// Entries that were looked at.
    pub entries: u64,
    /// Reals whose number of live connections was wrong.
    pub reals: u64,
}

impl View {
    /// Counts live connections by their entries and puts right what `ACTIVE` says. One walk over
    /// the maps of flows, whatever the number of reals.
    ///
    /// Connections come and go meanwhile: what is counted is compared with what `ACTIVE` said
    /// before the walk and after it, and only what lies outside of both is an error, which is taken
    /// out by an addition, so that no change of a program's is lost.
    ///
    /// # Errors
    /// A system call on a map failed.
    fn recount(&self) -> Result<Recount, KernelError> {
        let ids = REAL_FIRST as usize..self.real_capacity();
        let load = || ids.clone().map(|id| self.active.load(id)).collect::<Vec<_>>();
        let before = load();
        let now = self.jiffies()?;
        let mut recount = Recount::default();
        // Asked, never walked: its order does not matter.
        let mut counted: HashMap<u32, u64> = HashMap::new();
        self.for_each_flow(|_, row| {
            recount.entries += 1;
            if is_live(&row, now, self.settings.hz) {
                *counted.entry(row.flow.real).or_default() += 1;
            }
        })?;
        for ((id, before), after) in ids.clone().zip(before).zip(load()) {
            let counted = counted.get(&(id as u32)).copied().unwrap_or(0);
            if let Some(error) = error(before, after, counted) {
                self.active.subtract(id, error);
                recount.reals += 1;
            }
        }
        Ok(recount)
    }
}

impl Datapath {
    /// Counts live connections by their entries and puts right what `ACTIVE` says.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn recount(&mut self) -> Result<Recount, KernelError> {
        self.view().recount()
    }
}

impl View {
    /// Jiffies of now, reckoned from those at which the maps were made.
    fn jiffies(&self) -> Result<u32, KernelError> {
        let since = now()?.saturating_sub(self.settings.base_ns);
        let ticks = u128::from(since) * u128::from(self.settings.hz) / 1_000_000_000;
        Ok(self.settings.base_jiffies.wrapping_add(ticks as u32))
    }
}

/// Whether an entry stands for a live connection: the one of the client's direction, in which the
/// connection's state is.
fn is_live(row: &FlowRow, now: u32, hz: u32) -> bool {
    let state = row.flow.state;
    !row.half_open
        && row.direction == direction::FORWARD
        && state & flow_state::ESTABLISHED != 0
        && !tcp_state::closed(state)
        && match row.vip.protocol {
            VipProtocol::Tcp => true,
            // Where only the real sends, the flow is looked after every few seconds by nobody: it
            // counts again with the client's next datagram.
            VipProtocol::Udp => !datagram::silent(row.flow.last_seen, now, hz),
        }
}

/// By how much a number is too high (wrapping: below zero, too low), where `counted` entries were
/// found between two looks at it.
fn error(before: u64, after: u64, counted: u64) -> Option<u64> {
    // A count that has just gone below zero is put right by the program in the next moment.
    let wrapped = |count: u64| count > u64::from(u32::MAX);
    if wrapped(before) || wrapped(after) {
        return None;
    }
    let (least, most) = (before.min(after), before.max(after));
    if counted < least {
        Some(least - counted)
    } else if counted > most {
        Some(most.wrapping_sub(counted))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_moment_of_the_walk_explains_is_an_error() {
        for (before, after, counted, expected) in [
            (5, 5, 5, None),
            (5, 8, 6, None),
            (8, 5, 8, None),
            (5, 8, 3, Some(2)),
            (8, 5, 0, Some(5)),
            (2, 3, 10, Some(3u64.wrapping_sub(10))),
            (u64::MAX, 1, 0, None),
        ] {
            assert_eq!(error(before, after, counted), expected, "{before} {after} {counted}");
        }
        let mut count = 3u64;
        count = count.wrapping_sub(error(3, 3, 10).expect("too low"));
        assert_eq!(count, 10);
    }
}
