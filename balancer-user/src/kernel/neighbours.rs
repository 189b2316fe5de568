//! Neighbours: who is behind which Ethernet address on which interface (arp(7), RFC 4861).

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as State},
};

use super::{KernelError, netlink::Connection};

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the interface.
    pub interface: u32,
    /// Its address there.
    pub address: IpAddr,
    /// Its Ethernet address; `None`: none that a packet could be sent to.
    pub ethernet: Option<[u8; 6]>,
}

impl Neighbour {
    /// What a message tells; `None`: it is about something else, such as an entry of a bridge.
    pub fn read(message: &NeighbourMessage) -> Option<Self> {
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return None;
        }
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })?;
        // Those that `bpf_fib_lookup` takes too (`NUD_VALID`, net/neighbour.h).
        let valid = matches!(
            message.header.state,
            State::Permanent
                | State::Noarp
                | State::Reachable
                | State::Probe
                | State::Stale
                | State::Delay
        );
        let ethernet = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
        let ethernet = ethernet.filter(|_| valid);
        Some(Self { interface: message.header.ifindex, address, ethernet })
    }
}

/// The neighbours of this namespace.
///
/// # Errors
/// The kernel refuses to list them.
pub fn neighbours() -> Result<Vec<Neighbour>, KernelError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = Connection::open()
        .and_then(|mut connection| connection.ask(request, NLM_F_DUMP))
        .map_err(|e| KernelError::system("listing neighbours", e))?;
    let read = |answer: &RouteNetlinkMessage| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => Neighbour::read(message),
        _ => None,
    };
    Ok(answers.iter().filter_map(read).collect())
}
