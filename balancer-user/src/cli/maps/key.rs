//! Keys of elements, as `dump` prints and `lookup` takes them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use balancer_ebpf::abi::{HopKey, direction, map_names};

use crate::resolve::{VipKey, VipProtocol};

/// A key of any map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Of an array, and of `DEVICES`.
    Index(u32),
    /// Of `VIP_IDS4` and `VIP_IDS6`.
    Vip(VipKey),
    /// Of `SOURCE_IDS4`, `SOURCE_IDS6`, `VIP_ADDRESSES4` and `VIP_ADDRESSES6`.
    Address(IpAddr),
    /// Of `CLASS_ROUTES`.
    ClassVip(u32, u32),
    /// Of the flow maps: direction, protocol, source and destination as seen on the wire.
    Flow(u8, VipProtocol, SocketAddr, SocketAddr),
    /// Of `FRAGMENTS`: met where packets leave, source and destination, identification, protocol
    /// number.
    Fragment(bool, [IpAddr; 2], u32, u8),
    /// Of `HOP_IDS`.
    Hop(HopKey),
}

impl Key {
    /// Reads a key of the map `name`.
    ///
    /// # Errors
    /// Another form than that map's; the text says which it takes.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let v4 = name.ends_with('4');
        let family = |is_v4: bool| is_v4 == v4;
        let (key, form) = match name {
            map_names::VIP_IDS4 | map_names::VIP_IDS6 => (
                text.parse().ok().filter(|vip: &VipKey| family(vip.addr.is_ipv4())).map(Self::Vip),
                if v4 {
                    "ADDRESS:PORT, such as 240.0.0.3:6379, of UDP 240.0.0.3:53/udp"
                } else {
                    "ADDRESS:PORT, such as [fd62::3]:6379, of UDP [fd62::3]:53/udp"
                },
            ),
            map_names::SOURCE_IDS4
            | map_names::SOURCE_IDS6
            | map_names::VIP_ADDRESSES4
            | map_names::VIP_ADDRESSES6 => (
                text.parse()
                    .ok()
                    .filter(|address: &IpAddr| family(address.is_ipv4()))
                    .map(Self::Address),
                if v4 {
                    "an IPv4 address, such as 10.0.0.11"
                } else {
                    "an IPv6 address, such as fd00::11"
                },
            ),
            map_names::CLASS_ROUTES => (class_vip(text), "CLASS/VIP, both ids, such as 1/3"),
            map_names::FLOWS4 | map_names::HALF_OPEN4 => (
                flow(text).filter(|key| matches!(key, Self::Flow(_, _, src, _) if src.is_ipv4())),
                "forward|reply SOURCE:PORT DESTINATION:PORT [udp], such as \
                 `forward 10.0.0.11:40000 240.0.0.3:6379`",
            ),
            map_names::FLOWS6 | map_names::HALF_OPEN6 => (
                flow(text).filter(|key| matches!(key, Self::Flow(_, _, src, _) if src.is_ipv6())),
                "forward|reply SOURCE:PORT DESTINATION:PORT [udp], such as \
                 `forward [fd00::11]:40000 [fd62::3]:6379`",
            ),
            map_names::FRAGMENTS => (
                fragment(text),
                "in|out SOURCE DESTINATION ID PROTOCOL, such as `in 10.0.0.11 240.0.0.3 77 6`",
            ),
            map_names::HOP_IDS => (
                hop(text),
                "INTERFACE TO FROM, its number and two Ethernet addresses, such as \
                 `3 02:00:00:00:00:02 02:00:00:00:00:01`",
            ),
            map_names::DEVICES => {
                (text.parse().ok().map(Self::Index), "a number: the index of the interface")
            }
            _ => (text.parse().ok().map(Self::Index), "a number: the index of the element"),
        };
        key.ok_or_else(|| format!("`{text}` is no key of {name}; it takes {form}"))
    }
}

fn endpoint(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn class_vip(text: &str) -> Option<Key> {
    let (class, vip) = text.split_once('/')?;
    Some(Key::ClassVip(class.parse().ok()?, vip.parse().ok()?))
}

fn flow(text: &str) -> Option<Key> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (protocol, [way, src, dst]) = match words[..] {
        [way, src, dst] => (VipProtocol::Tcp, [way, src, dst]),
        [way, src, dst, "udp"] => (VipProtocol::Udp, [way, src, dst]),
        _ => return None,
    };
    let way = match way {
        "forward" => direction::FORWARD,
        "reply" => direction::REPLY,
        _ => return None,
    };
    let (src, dst) = (endpoint(src)?, endpoint(dst)?);
    (src.is_ipv4() == dst.is_ipv4()).then_some(Key::Flow(way, protocol, src, dst))
}

fn fragment(text: &str) -> Option<Key> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [way, src, dst, id, protocol] = words[..] else { return None };
    let leaving = match way {
        "in" => false,
        "out" => true,
        _ => return None,
    };
    let ends: [IpAddr; 2] = [src.parse().ok()?, dst.parse().ok()?];
    let same = ends[0].is_ipv4() == ends[1].is_ipv4();
    same.then_some(Key::Fragment(leaving, ends, id.parse().ok()?, protocol.parse().ok()?))
}

fn hop(text: &str) -> Option<Key> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [interface, to, from] = words[..] else { return None };
    let (to, from) = (ethernet(to)?, ethernet(from)?);
    Some(Key::Hop(HopKey { to, from, interface: interface.parse().ok()? }))
}

fn ethernet(text: &str) -> Option<[u8; 6]> {
    let byte = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(part, 16).ok().filter(|_| plain)
    };
    text.split(':').map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// An Ethernet address as `ip` prints it.
pub(super) fn ethernet_text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Vip(vip) => write!(f, "{vip}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::ClassVip(class, vip) => write!(f, "{class}/{vip}"),
            Self::Fragment(leaving, [src, dst], id, protocol) => {
                let way = if *leaving { "out" } else { "in" };
                write!(f, "{way} {src} {dst} {id} {protocol}")
            }
            Self::Hop(HopKey { to, from, interface }) => {
                write!(f, "{interface} {} {}", ethernet_text(*to), ethernet_text(*from))
            }
            Self::Flow(way, protocol, src, dst) => {
                let way = if *way == direction::FORWARD { "forward" } else { "reply" };
                let protocol = if *protocol == VipProtocol::Udp { " udp" } else { "" };
                write!(f, "{way} {src} {dst}{protocol}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::View;

    #[test]
    fn key_is_read_as_it_is_printed() {
        for (name, key) in [
            ("VIP_IDS4", "240.0.0.3:6379"),
            ("VIP_IDS6", "[fd62::3]:6379"),
            ("VIP_IDS4", "240.0.0.3:53/udp"),
            ("FLOWS4", "forward 10.0.0.11:40000 240.0.0.3:53 udp"),
            ("SOURCE_IDS4", "10.0.0.11"),
            ("SOURCE_IDS6", "fd00::11"),
            ("VIP_ADDRESSES6", "fd62::3"),
            ("FRAGMENTS", "in 10.0.0.11 240.0.0.3 77 6"),
            ("FRAGMENTS", "out fd00::21 fd00::11 4000000000 17"),
            ("CLASS_ROUTES", "1/3"),
            ("HOP_IDS", "3 02:00:00:00:00:02 02:00:00:00:00:0a"),
            ("FLOWS4", "forward 10.0.0.11:40000 240.0.0.3:6379"),
            ("HALF_OPEN6", "reply [fd00::21]:6379 [fd00::11]:40000"),
            ("ROUTES", "17"),
        ] {
            assert_eq!(Key::parse(name, key).map(|key| key.to_string()).as_deref(), Ok(key));
        }
    }

    #[test]
    fn key_of_another_form_names_the_one_that_the_map_takes() {
        for (name, key, form) in [
            ("VIP_IDS4", "[fd62::3]:6379", "240.0.0.3:6379"),
            ("VIP_IDS4", "240.0.0.3", "ADDRESS:PORT"),
            ("SOURCE_IDS6", "10.0.0.11", "IPv6"),
            ("CLASS_ROUTES", "1", "CLASS/VIP"),
            ("FRAGMENTS", "in 10.0.0.11 fd62::3 77 6", "in|out"),
            ("FLOWS4", "10.0.0.11:40000 240.0.0.3:6379", "forward|reply"),
            ("FLOWS6", "forward 10.0.0.11:40000 240.0.0.3:6379", "[fd00::11]:40000"),
            ("FLOWS4", "forward 10.0.0.11:40000 [fd62::3]:6379", "forward|reply"),
            ("ROUTES", "-1", "a number"),
            ("HOP_IDS", "3 02:00:00:00:00 02:00:00:00:00:01", "INTERFACE TO FROM"),
            ("HOP_IDS", "3 +2:00:00:00:00:02 02:00:00:00:00:1", "INTERFACE TO FROM"),
        ] {
            let error = Key::parse(name, key).expect_err(key);
            assert!(error.contains(form) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn every_map_takes_some_key() {
        let keys = ["0", "1.2.3.4", "fd00::1", "1.2.3.4:5", "[fd00::1]:5", "1/2"];
        let flows = ["forward 1.2.3.4:5 1.2.3.4:6", "reply [fd00::1]:5 [fd00::1]:6"];
        let others = ["in 1.2.3.4 1.2.3.5 6 7", "1 00:00:00:00:00:01 00:00:00:00:00:02"];
        let flows = flows.iter().chain(&others);
        for name in View::map_names() {
            let taken =
                keys.iter().chain(flows.clone()).filter(|key| Key::parse(name, key).is_ok());
            assert_eq!(taken.count(), 1, "{name}");
        }
    }
}
