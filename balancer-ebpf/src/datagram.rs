//! What stands in for a connection where there is none: a UDP flow.
//!
//! Its state has the same bits as a connection's. `SYN_ACK`: the real has answered.
//! `ESTABLISHED`: the client has sent again after that, so both ends mean it.

use crate::abi::flow_state::{ESTABLISHED, SYN_ACK};

/// Seconds of silence of both ends after which a flow is over. Time stamps are up to a second old,
/// so it may live a second longer, and never ends earlier.
pub const FLOW_S: u32 = 30;

/// Whether an end has been silent for so long. All in jiffies, `hz` of them a second.
#[inline(always)]
pub const fn silent(last_seen: u32, now: u32, hz: u32) -> bool {
    now.wrapping_sub(last_seen) > (FLOW_S + 1) * hz
}

/// Whether a datagram of the client shows that both ends mean it.
#[inline(always)]
pub const fn completes(state: u8) -> bool {
    state & (SYN_ACK | ESTABLISHED) == SYN_ACK
}

/// What the real's datagram adds to the state.
#[inline(always)]
pub const fn from_real(state: u8) -> u8 {
    SYN_ACK & !state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_flow_after_thirty_seconds_and_never_before() {
        let hz = 100;
        let start = u32::MAX - 50; // jiffies wrap
        // Written at the last whole second, when the last packet came up to a second later.
        let last_packet = start.wrapping_add(hz - 1);
        assert!(!silent(start, last_packet.wrapping_add(30 * hz), hz));
        assert!(silent(start, last_packet.wrapping_add(31 * hz), hz));
        assert!(!silent(start, start, hz));
    }

    #[test]
    fn a_flow_is_meant_once_the_client_goes_on_after_an_answer() {
        assert!(!completes(0), "nobody has answered");
        let state = from_real(0);
        assert!(completes(state));
        assert_eq!(from_real(state), 0, "said once");
        assert!(!completes(state | ESTABLISHED), "once only");
    }
}
