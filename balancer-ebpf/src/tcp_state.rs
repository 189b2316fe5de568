//! What a packet's flags make of a connection's state.
//!
//! The state is a set of facts seen ([`flow_state`](crate::abi::flow_state)); it only grows while an entry lives. No
//! sequence number is looked at: whether a RST or FIN counts is for the two ends to judge, and
//! an entry marked closed by a forged one goes on forwarding all the same.

use crate::{
    abi::flow_state::{ADOPTED, CLIENT_FIN, ESTABLISHED, REAL_FIN, RESET, SYN_ACK},
    packet::tcp_flags::{ACK, FIN, RST, SYN},
};

/// A SYN that opens a connection. What carries RST too is a RST.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST) == SYN
}

/// What the client's packet adds to the state.
#[inline(always)]
pub const fn from_client(flags: u8) -> u8 {
    if flags & RST != 0 {
        RESET
    } else if flags & (SYN | FIN) == FIN {
        CLIENT_FIN
    } else {
        0
    }
}

/// What the client's packet adds where nobody sees what the real sends: with the client's FIN the
/// connection counts as over.
#[inline(always)]
pub const fn from_client_alone(flags: u8) -> u8 {
    match from_client(flags) {
        CLIENT_FIN => CLIENT_FIN | REAL_FIN,
        seen => seen,
    }
}

/// What the real's packet adds to the state.
#[inline(always)]
pub const fn from_real(flags: u8) -> u8 {
    if flags & RST != 0 {
        RESET
    } else if flags & (SYN | ACK) == SYN | ACK {
        SYN_ACK
    } else if flags & (SYN | FIN) == FIN {
        REAL_FIN
    } else {
        0
    }
}

/// Whether the client's packet completes the handshake.
#[inline(always)]
pub const fn completes(state: u8, flags: u8) -> bool {
    state & (SYN_ACK | ESTABLISHED | RESET) == SYN_ACK && flags & (SYN | ACK | RST) == ACK
}

/// Whether the client's packet completes the handshake where nobody sees the SYN-ACK: it is the
/// first that acknowledges anything.
#[inline(always)]
pub const fn completes_alone(state: u8, flags: u8) -> bool {
    completes(state | SYN_ACK, flags)
}

/// One of them has begun to close: a new SYN is a new connection.
#[inline(always)]
pub const fn closing(state: u8) -> bool {
    state & (CLIENT_FIN | REAL_FIN | RESET) != 0
}

/// Both have closed, or one has reset: no longer live.
#[inline(always)]
pub const fn closed(state: u8) -> bool {
    state & RESET != 0 || state & (CLIENT_FIN | REAL_FIN) == CLIENT_FIN | REAL_FIN
}

/// Whether the change from `before` to `after` ends a connection that is counted as live.
#[inline(always)]
pub const fn ends(before: u8, after: u8) -> bool {
    before & ESTABLISHED != 0 && !closed(before) && closed(after)
}

/// The state of a flow made from a packet without a SYN.
#[inline(always)]
pub const fn adopted(flags: u8) -> u8 {
    ADOPTED | ESTABLISHED | from_client(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_syn_alone_opens() {
        for flags in 0..64 {
            let expected = flags & SYN != 0 && flags & ACK == 0 && flags & RST == 0;
            assert_eq!(opens(flags), expected, "{flags:#08b}");
        }
    }

    #[test]
    fn handshake_completes_at_the_first_ack_after_the_syn_ack() {
        let mut state = 0;
        assert!(!completes(state, ACK), "no SYN-ACK yet");
        state |= from_real(SYN | ACK);
        assert!(!completes(state, SYN), "a retransmitted SYN");
        assert!(!completes(state, RST | ACK));
        assert!(completes(state, ACK));
        assert!(completes(state, ACK | FIN));
        assert!(!completes(state | ESTABLISHED, ACK), "once only");
        assert!(!completes(state | RESET, ACK), "a reset real");
    }

    #[test]
    fn of_one_side_alone_the_first_ack_completes_and_the_first_fin_closes() {
        assert!(completes_alone(0, ACK) && completes_alone(0, ACK | FIN));
        assert!(!completes_alone(0, SYN) && !completes_alone(0, RST | ACK));
        assert!(!completes_alone(ESTABLISHED, ACK) && !completes_alone(RESET, ACK));
        assert!(ends(ESTABLISHED, ESTABLISHED | from_client_alone(FIN | ACK)));
        assert!(ends(ESTABLISHED, ESTABLISHED | from_client_alone(RST)));
        assert_eq!((from_client_alone(ACK), from_client_alone(SYN | FIN)), (0, 0));
    }

    #[test]
    fn two_fins_or_one_reset_close() {
        assert!(!closed(ESTABLISHED | CLIENT_FIN) && closing(ESTABLISHED | CLIENT_FIN));
        assert!(!closed(ESTABLISHED | REAL_FIN) && closing(ESTABLISHED | REAL_FIN));
        assert!(closed(CLIENT_FIN | REAL_FIN));
        assert!(closed(from_client(RST)) && closed(from_real(RST | ACK)));
        assert!(!closing(ESTABLISHED | SYN_ACK | ADOPTED));
    }

    #[test]
    fn a_connection_ends_once_in_whatever_order() {
        for order in [[CLIENT_FIN, REAL_FIN, RESET], [RESET, CLIENT_FIN, REAL_FIN]] {
            let (mut state, mut ended) = (SYN_ACK | ESTABLISHED, 0);
            for bit in order {
                ended += u8::from(ends(state, state | bit));
                state |= bit;
            }
            assert_eq!(ended, 1, "{order:?}");
        }
        assert!(!ends(SYN_ACK, SYN_ACK | RESET), "never counted, so it does not end");
    }
}
