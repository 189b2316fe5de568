//! What clients dial.

use std::{collections::BTreeSet, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Destination, ProtocolRule, ResolveSettings};

/// Address, port and protocol that clients dial. Ports of TCP and UDP with one number are two
/// VIPs. Its text is `240.0.0.3:6379`, of UDP `240.0.0.3:53/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VipKey {
    /// Address and port.
    pub addr: SocketAddr,
    /// Protocol; TCP in what was written before there was another.
    #[serde(default)]
    pub protocol: VipProtocol,
}

/// Protocol of a VIP.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VipProtocol {
    /// TCP, where nothing else is said.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl VipProtocol {
    /// Every protocol that is carried.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => balancer_ebpf::abi::TCP,
            Self::Udp => balancer_ebpf::abi::UDP,
        }
    }

    /// The protocol with this IP protocol number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// What follows an address and port in the text of a VIP.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/udp",
        }
    }
}

impl VipKey {
    /// A VIP of TCP.
    pub fn tcp(addr: SocketAddr) -> Self {
        Self { addr, protocol: VipProtocol::Tcp }
    }

    /// What the maps have, with an IP protocol number: neither user space nor the programs write
    /// others than those that are carried.
    pub(crate) fn numbered(addr: SocketAddr, number: u8) -> Self {
        Self { addr, protocol: VipProtocol::from_number(number).unwrap_or_default() }
    }

    /// A VIP of UDP.
    pub fn udp(addr: SocketAddr) -> Self {
        Self { addr, protocol: VipProtocol::Udp }
    }
}

impl fmt::Display for VipKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.addr, self.protocol.suffix())
    }
}

/// No text of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a VIP is ADDRESS:PORT, of UDP ADDRESS:PORT/udp")]
pub struct NoVipKey;

impl FromStr for VipKey {
    type Err = NoVipKey;

    fn from_str(text: &str) -> Result<Self, NoVipKey> {
        let (addr, protocol) = match text.rsplit_once('/') {
            None => (text, VipProtocol::Tcp),
            Some((addr, name)) => {
                let named = VipProtocol::ALL.into_iter().find(|known| known.name() == name);
                (addr, named.ok_or(NoVipKey)?)
            }
        };
        Ok(Self { addr: addr.parse().map_err(|_| NoVipKey)?, protocol })
    }
}

impl ResolveSettings {
    /// What a destination is dialled with at this port: a port of a Service says so itself, for
    /// what is in a mesh the configuration does.
    pub(super) fn protocols(&self, destination: &Destination, port: u16) -> BTreeSet<VipProtocol> {
        match destination {
            Destination::Service { protocol, .. } => return BTreeSet::from([*protocol]),
            Destination::Listener { .. } => return BTreeSet::from([VipProtocol::Tcp]),
            Destination::Tags { .. } | Destination::Port { .. } | Destination::Missing { .. } => {}
        }
        let named: BTreeSet<VipProtocol> = self
            .protocols
            .iter()
            .filter(|rule| rule.means(destination, port))
            .map(|rule| rule.protocol)
            .collect();
        if named.is_empty() { BTreeSet::from([VipProtocol::Tcp]) } else { named }
    }
}

impl ProtocolRule {
    /// Whether it speaks of what is dialled at this port.
    pub fn means(&self, destination: &Destination, port: u16) -> bool {
        self.mesh == destination.mesh()
            && self.port.is_none_or(|own| own.get() == port)
            && *self.service == *destination.owner().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_the_protocol_where_it_is_not_tcp() {
        for text in ["240.0.0.3:6379", "240.0.0.3:53/udp", "[fd62::3]:53/udp"] {
            assert_eq!(text.parse::<VipKey>().map(|key| key.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("10.0.0.1:80/tcp".parse(), Ok(VipKey::tcp(([10, 0, 0, 1], 80).into())));
        for wrong in ["10.0.0.1", "10.0.0.1/udp", "10.0.0.1:80/sctp", "10.0.0.1:80/", "a:80/udp"] {
            assert_eq!(wrong.parse::<VipKey>(), Err(NoVipKey), "{wrong}");
        }
    }

    #[test]
    fn ports_of_one_number_are_two_vips_and_old_records_are_of_tcp() {
        let addr = ([240, 0, 0, 3], 53).into();
        assert_ne!(VipKey::tcp(addr), VipKey::udp(addr));
        let old: VipKey = serde_json::from_str(r#"{"addr":"240.0.0.3:53"}"#).unwrap();
        assert_eq!(old, VipKey::tcp(addr));
    }
}
