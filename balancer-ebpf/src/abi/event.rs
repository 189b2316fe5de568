//! What the programs tell of single packets, and how they are asked to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the ring buffer `EVENTS`: a power of two, whole pages.
pub const EVENTS_BYTES: usize = 256 << 10;

/// What a tracer asks for: the element of `TRACE`. User space writes `until_ns` last. 40 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Trace {
    /// Events are told until then, nanoseconds of `CLOCK_MONOTONIC`; 0: nobody listens. The
    /// first program that finds it past makes it 0, so a tracer that was killed costs nothing.
    pub until_ns: u64,
    /// Bit [`Reason::bit`](crate::reason::Reason::bit): packets that met it are told of.
    pub reasons: u64,
    /// Nanoseconds that an event takes of its CPU's allowance; 0: no limit.
    pub interval_ns: u64,
    /// How far ahead of the clock the allowance may be used up, nanoseconds: a burst of
    /// `ahead_ns / interval_ns + 1` events.
    pub ahead_ns: u64,
    /// Of new flows one in so many is told of, at random; 0 and 1: each.
    pub sample: u32,
    /// Zero.
    pub zero: u32,
}

/// What became of the events of one CPU: the element of `TRACED`. 40 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Traced {
    /// Until when the CPU's allowance is used up, nanoseconds of `CLOCK_MONOTONIC`.
    pub used_until_ns: u64,
    /// Written to `EVENTS`.
    pub told: u64,
    /// Left out by sampling.
    pub left_out: u64,
    /// Lost to the limit.
    pub limited: u64,
    /// Lost because `EVENTS` was full: the tracer did not keep up.
    pub full: u64,
}

/// A new flow, or a packet that was refused. Ids are those of `epoch`. 96 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Event {
    /// When, nanoseconds of `CLOCK_MONOTONIC_COARSE`: up to a tick behind `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Number of the [`Reason`](crate::reason::Reason).
    pub reason: u32,
    /// How many packets this event stands for: 1, or [`Trace::sample`].
    pub sample: u32,
    /// Low 32 bits of the epoch at which the ids below were read.
    pub epoch: u32,
    /// VIP id; 0: no VIP of that epoch (and for packets of reals, which do not name it).
    pub vip: u32,
    /// Source class.
    pub class: u32,
    /// Route id; 0: none.
    pub route: u32,
    /// Real id of the flow; 0: it has no entry.
    pub real: u32,
    /// Generation of that real when the flow was made.
    pub generation: u32,
    /// Counter id of the flow: it names route and backend. 0: no entry, or not counted.
    pub counter: u32,
    /// Interface that the packet came in by (ingress) or goes out of (egress).
    pub ifindex: u32,
    /// Source address of the packet as it came, network order; IPv4 in the first four bytes,
    /// the rest zero.
    pub src: [u8; 16],
    /// Destination address, like `src`.
    pub dst: [u8; 16],
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// The source port that the real sees, network order; zero: the flow has no entry.
    pub client_port: [u8; 2],
    /// 4 or 6.
    pub family: u8,
    /// One of [`direction`](crate::abi::direction).
    pub direction: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub zero: [u8; 7],
}

const _: () = {
    assert!(size_of::<Trace>() == 40);
    assert!(size_of::<Traced>() == 40);
    assert!(size_of::<Event>() == 96);
};
