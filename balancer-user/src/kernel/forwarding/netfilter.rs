//! What stands on the way of packets that the calling thread's network namespace forwards:
//! chains of nftables, tables of iptables, conntrack, policies of IPsec.
//!
//! nftables is asked over nfnetlink (linux/netfilter/nf_tables.h), IPsec over its own netlink
//! (linux/xfrm.h): of both only a few numbers, which no crate in use here speaks of.

use std::{fs, io};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer,
    NlasIterator, parse_string, parse_u32, parse_u32_be,
};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_XFRM};

use super::{
    super::netlink::Connection,
    judge::{Chain, Rules},
};

/// How often a list is asked for that changes while it is read.
const TRIES: u32 = 5;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `XFRM_MSG_GETSPDINFO`.
const GET_POLICY_INFO: u16 = 0x25;

/// A message as it lies behind the netlink header, which has its kind.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, bytes: payload.to_vec() })
    }
}

/// All of it; what cannot be asked is noted.
pub(super) fn rules() -> Rules {
    let mut rules = Rules::default();
    let mut unknown = |what, error: &io::Error| rules.unknown.push((what, error.to_string()));
    let chains = chains().unwrap_or_else(|error| {
        unknown("nftables", &error);
        Vec::new()
    });
    let tables = tables().unwrap_or_else(|error| {
        unknown("iptables", &error);
        Vec::new()
    });
    let tracked = tracked().unwrap_or_else(|error| {
        unknown("conntrack", &error);
        false
    });
    let policies = policies().unwrap_or_else(|error| {
        unknown("IPsec", &error);
        0
    });
    Rules { chains, tables, tracked, policies, ..rules }
}

/// A socket of a protocol; `None`: this kernel does not know it.
fn open(protocol: isize) -> io::Result<Option<Connection>> {
    match Connection::to(protocol) {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Base chains of nftables, those that iptables makes there too.
fn chains() -> io::Result<Vec<Chain>> {
    let Some(mut connection) = open(NETLINK_NETFILTER)? else { return Ok(Vec::new()) };
    // `struct nfgenmsg`: every family, version 0, no resource.
    let request = Message { kind: GET_CHAIN, bytes: vec![0; 4] };
    for _ in 0..TRIES {
        let answers = match connection.ask(request.clone(), NLM_F_DUMP) {
            Ok(answers) => answers,
            // What nfnetlink says of a part that the kernel has not.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        if !connection.interrupted {
            let read = answers.iter().map(|answer| chain(&answer.bytes));
            let read: Result<Vec<_>, _> = read.collect();
            return Ok(read.map_err(io::Error::other)?.into_iter().flatten().collect());
        }
    }
    Err(io::Error::other("the list of chains changes all the time"))
}

/// Attributes, their numbers without the bits beside them.
fn attributes(bytes: &[u8]) -> Result<Vec<NlaBuffer<&[u8]>>, DecodeError> {
    NlasIterator::new(bytes).collect()
}

/// `None`: packets meet it only where rules of another chain send them there.
fn chain(bytes: &[u8]) -> Result<Option<Chain>, DecodeError> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const USE: u16 = 6;
    const NF_DROP: u32 = 0;
    let Some((head, rest)) = bytes.split_at_checked(4) else {
        return Err(DecodeError::invalid_buffer("nfgenmsg", bytes.len(), 4));
    };
    let mut chain = Chain { family: head[0], ..Chain::default() };
    let mut is_base = false;
    for attribute in attributes(rest)? {
        match attribute.kind() {
            TABLE => chain.table = parse_string(attribute.value())?,
            NAME => chain.name = parse_string(attribute.value())?,
            HOOK => {
                is_base = true;
                hook(attribute.value(), &mut chain)?;
            }
            POLICY => chain.drops = parse_u32_be(attribute.value())? == NF_DROP,
            // Of a base chain, to which no rule can jump: how many rules it has.
            USE => chain.rules = parse_u32_be(attribute.value())?,
            _ => {}
        }
    }
    Ok(is_base.then_some(chain))
}

fn hook(bytes: &[u8], chain: &mut Chain) -> Result<(), DecodeError> {
    const NUMBER: u16 = 1;
    const DEVICE: u16 = 3;
    const DEVICES: u16 = 4;
    /// In the list of devices: the beginning of names (Linux 6.16).
    const PREFIX: u16 = 2;
    for attribute in attributes(bytes)? {
        match attribute.kind() {
            NUMBER => chain.hook = parse_u32_be(attribute.value())?,
            DEVICE => chain.devices.push(parse_string(attribute.value())?),
            DEVICES => {
                for device in attributes(attribute.value())? {
                    let name = parse_string(device.value())?;
                    let all = if device.kind() == PREFIX { "*" } else { "" };
                    chain.devices.push(format!("{name}{all}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A file of the calling thread's namespace; `None`: the kernel has no such part.
fn read(path: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// Tables of iptables proper; those that it makes in nftables are chains there. What rules a table
/// has is not looked at: one is registered when iptables is first asked about it, and stays.
fn tables() -> io::Result<Vec<(&'static str, String)>> {
    let mut tables = Vec::new();
    for (family, file) in [("IPv4", "ip_tables_names"), ("IPv6", "ip6_tables_names")] {
        let names = read(&format!("/proc/thread-self/net/{file}"))?.unwrap_or_default();
        tables.extend(names.lines().map(|name| (family, name.to_owned())));
    }
    Ok(tables)
}

/// Whether conntrack follows a connection. It does where some rule asks it to.
fn tracked() -> io::Result<bool> {
    let Some(count) = read("/proc/sys/net/netfilter/nf_conntrack_count")? else {
        return Ok(false);
    };
    match count.trim().parse::<u64>() {
        Ok(count) => Ok(count > 0),
        Err(error) => Err(io::Error::other(format!("nf_conntrack_count: {error}"))),
    }
}

/// How many policies of IPsec there are, in all directions.
fn policies() -> io::Result<u32> {
    let Some(mut connection) = open(NETLINK_XFRM)? else { return Ok(0) };
    // Flags, of which there are none.
    let request = Message { kind: GET_POLICY_INFO, bytes: vec![0; 4] };
    let answers = connection.ask(request, 0)?;
    let Some(answer) = answers.first() else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"));
    };
    policy_count(&answer.bytes).map_err(io::Error::other)
}

fn policy_count(bytes: &[u8]) -> Result<u32, DecodeError> {
    /// `XFRMA_SPD_INFO`: `struct xfrmu_spdinfo` begins with incoming, outgoing, forwarded.
    const COUNTS: u16 = 1;
    let rest = bytes.get(4..).unwrap_or_default();
    for attribute in attributes(rest)? {
        if attribute.kind() == COUNTS {
            let mut sum = 0;
            for count in attribute.value().chunks_exact(4).take(3) {
                sum += parse_u32(count)?;
            }
            return Ok(sum);
        }
    }
    Err(DecodeError::from("the answer has no counts"))
}

#[cfg(test)]
mod tests {
    use super::{super::judge::family, *};

    /// An attribute, padded.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `NLA_F_NESTED`.
    const NESTED: u16 = 0x8000;

    fn message(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![family, 0, 0, 0], attributes.concat()].concat()
    }

    #[test]
    fn a_base_chain_is_read_with_its_devices() {
        let devices = [attribute(1, b"v-a\0"), attribute(2, b"eth\0")].concat();
        let hook = [
            attribute(1, &0u32.to_be_bytes()),
            attribute(2, &(-300i32).to_be_bytes()),
            attribute(4 | NESTED, &devices),
        ]
        .concat();
        let bytes = message(
            family::NETDEV,
            &[
                attribute(1, b"edge\0"),
                attribute(3, b"in\0"),
                attribute(4 | NESTED, &hook),
                attribute(5, &0u32.to_be_bytes()),
                attribute(6, &2u32.to_be_bytes()),
            ],
        );
        let expected = Chain {
            family: family::NETDEV,
            table: "edge".to_owned(),
            name: "in".to_owned(),
            hook: 0,
            devices: vec!["v-a".to_owned(), "eth*".to_owned()],
            rules: 2,
            drops: true,
        };
        assert_eq!(chain(&bytes).expect("a chain"), Some(expected));
    }

    #[test]
    fn a_chain_that_only_rules_lead_to_is_none_of_its_own() {
        let bytes = message(family::INET, &[attribute(1, b"t\0"), attribute(3, b"jumped-to\0")]);
        assert_eq!(chain(&bytes).expect("a chain"), None);
    }

    #[test]
    fn what_is_cut_short_is_an_error_and_not_an_empty_list() {
        let whole = message(family::INET, &[attribute(1, b"table\0")]);
        for length in [0, 3, 7, whole.len() - 3] {
            assert!(chain(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(policy_count(&[0; 4]).is_err());
    }

    #[test]
    fn policies_of_all_directions_are_counted() {
        let counts: Vec<u8> =
            [1u32, 2, 4, 8, 16, 32].iter().flat_map(|c| c.to_ne_bytes()).collect();
        let bytes = [vec![0; 4], attribute(1, &counts)].concat();
        assert_eq!(policy_count(&bytes).expect("counts"), 7);
    }
}
