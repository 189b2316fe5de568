//! Keys and values of the flow maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of [`FlowKey4::direction`] and [`FlowKey6::direction`].
pub mod direction {
    /// Client → VIP, as the client sent it.
    pub const FORWARD: u8 = 0;
    /// Real → client, as the real sent it.
    pub const REPLY: u8 = 1;
}

/// 5-tuple and direction (IPv4). 16 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(4))]
pub struct FlowKey4 {
    /// Source address, network order.
    pub src: [u8; 4],
    /// Destination address, network order.
    pub dst: [u8; 4],
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// Zero.
    pub zero: [u8; 2],
}

/// 5-tuple and direction (IPv6). 40 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(4))]
pub struct FlowKey6 {
    /// Source address, network order.
    pub src: [u8; 16],
    /// Destination address, network order.
    pub dst: [u8; 16],
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// Zero.
    pub zero: [u8; 2],
}

/// Bits of [`FlowState::state`].
pub mod flow_state {
    /// The real's SYN-ACK was seen; of UDP: an answer of the real.
    pub const SYN_ACK: u8 = 1;
    /// The client's handshake ACK was seen, of UDP a datagram after the real's answer; counted in
    /// `ACTIVE`.
    pub const ESTABLISHED: u8 = 2;
    /// The client sent FIN.
    pub const CLIENT_FIN: u8 = 4;
    /// The real sent FIN.
    pub const REAL_FIN: u8 = 8;
    /// One of them sent RST.
    pub const RESET: u8 = 16;
    /// Made without a SYN (reason `flow_adopted`).
    pub const ADOPTED: u8 = 32;
}

/// Bits of [`FlowState::forwarding`]: how the packets of a flow are sent on, both directions
/// alike. None: the stack routes them; requests are translated where they come in, replies where
/// they leave.
pub mod forwarding {
    /// The node itself opened the connection: requests are translated where they leave, replies
    /// where they come in.
    pub const HOST: u8 = 1;
    /// Client and real have one address: the real sees the VIP's as its client's, and packets are
    /// turned round where they are met.
    pub const HAIRPIN: u8 = 2;
    /// Past the stack: both directions are translated where they come in and sent to the
    /// interface by which they leave.
    pub const DIRECT: u8 = 4;
    /// The real answers the client by itself, and there is no reply entry. Requests are not
    /// translated: their frames are addressed to the real.
    pub const DSR_L2: u8 = 8;
    /// As [`DSR_L2`], but requests travel to the real inside another packet.
    pub const DSR_IPIP: u8 = 16;
    /// The real sees an address and a port of the node as its client's, so that its answers come
    /// here whatever its routes. Both directions are translated where they come in and go past the
    /// stack, which takes no packet that comes in from an address of its own.
    pub const SNAT: u8 = 32;
    /// What XDP carries too: it sends packets past the stack whatever the flow says.
    pub const BY_XDP: u8 = DIRECT | SNAT;
    /// Either way by which reals answer by themselves.
    pub const DSR: u8 = DSR_L2 | DSR_IPIP;
}

/// What both families' flow values begin with. 24 bytes.
///
/// The state of the *forward* entry is the connection's; a reply entry's is a copy that may
/// lag behind.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct FlowState {
    /// Real id.
    pub real: u32,
    /// Generation of the real when the flow was made.
    pub generation: u32,
    /// Counter id; 0: not counted.
    pub counter: u32,
    /// Low 32 bits of the kernel's jiffies; written at most once a second.
    pub last_seen: u32,
    /// Jiffies when the forward path last looked after the reply entry.
    pub refreshed: u32,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Bits of [`forwarding`].
    pub forwarding: u8,
    /// Forward entry: the source port that the real sees, network order. Reply entry: the
    /// client's own port. Equal to the packet's port unless a tuple clash made it another.
    pub client_port: [u8; 2],
}

/// Value of `FLOWS4` and `HALF_OPEN4`. 40 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct Flow4 {
    /// What does not depend on the family.
    pub flow: FlowState,
    /// The VIP's address, network order.
    pub vip: [u8; 4],
    /// The VIP's port, network order.
    pub vip_port: [u8; 2],
    /// Zero.
    pub zero: [u8; 2],
    /// Of [`forwarding::SNAT`]; else zero. Forward entry: the address that the real sees as its
    /// client's. Reply entry: the client's own. Network order.
    pub client: [u8; 4],
    /// The next hop that XDP found for this direction, see [`hop_of`](super::hop_of); 0: none.
    pub hop: u32,
}

/// Value of `FLOWS6` and `HALF_OPEN6`. 64 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct Flow6 {
    /// What does not depend on the family.
    pub flow: FlowState,
    /// The VIP's address, network order.
    pub vip: [u8; 16],
    /// The VIP's port, network order.
    pub vip_port: [u8; 2],
    /// Zero.
    pub zero: [u8; 2],
    /// Of [`forwarding::SNAT`]; else zero. Forward entry: the address that the real sees as its
    /// client's. Reply entry: the client's own. Network order.
    pub client: [u8; 16],
    /// The next hop that XDP found for this direction, see [`hop_of`](super::hop_of); 0: none.
    pub hop: u32,
}
