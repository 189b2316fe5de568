//! The programs, and the packets that each sees.

use balancer_ebpf::abi::program_names;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Ingress,
    Egress,
    Ask,
    /// In a namespace with the routes that the test makes.
    Edge,
    /// As [`Hook::Edge`], to reals that answer by themselves: in a tunnel.
    Tunnel,
    /// The same, in frames addressed to them.
    Link,
    /// Egress, of a packet that the node itself made. At the other one it came in by an interface.
    Host,
}

impl Hook {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Ingress => program_names::INGRESS,
            Self::Egress | Self::Host => program_names::EGRESS,
            Self::Ask => program_names::ASK,
            Self::Edge => program_names::XDP_NAT,
            Self::Tunnel => program_names::XDP_IPIP,
            Self::Link => program_names::XDP_L2,
        }
    }

    /// Whether the packet is one before any stack has seen it.
    pub(super) fn is_xdp(self) -> bool {
        matches!(self, Self::Edge | Self::Tunnel | Self::Link)
    }
}
