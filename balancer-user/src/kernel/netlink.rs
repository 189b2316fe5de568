//! Questions to the kernel over netlink (netlink(7), rtnetlink(7)), in the caller's network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Direction, KernelError};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, which a deleted and recreated interface of the same name does not keep.
    pub index: u32,
    /// Set up: packets pass.
    pub up: bool,
    /// It is the loopback.
    pub loopback: bool,
    /// It is an end of a veth pair.
    pub veth: bool,
    /// Its other end, or what it stands on, is in another network namespace.
    pub elsewhere: bool,
    /// It is part of another interface (a bridge, a bond, a VRF), which decides about its packets.
    pub part: bool,
    /// Its queueing discipline at egress; empty where the kernel names none.
    pub queue: String,
    /// Its Ethernet address, where it has one.
    pub address: Option<[u8; 6]>,
    /// Bytes of the longest packet, without its Ethernet header; 0: the kernel names none.
    pub mtu: u32,
    /// The XDP program on it.
    pub xdp: Option<XdpThere>,
}

/// An XDP program on an interface, whosever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpThere {
    /// The kernel's id of the program.
    pub program: u32,
    /// Before the stack, not in the driver.
    pub generic: bool,
}

impl XdpThere {
    fn read(attributes: &[LinkXdp]) -> Option<Self> {
        let generic = attributes.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
        attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(program) => Some(Self { program: *program, generic }),
            _ => None,
        })
    }
}

/// A filter of the clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) priority: u16,
    pub(crate) handle: u32,
    pub(crate) kind: String,
    /// Id of the BPF program; 0: it has none.
    pub(crate) program: u32,
    pub(crate) name: String,
}

/// A socket of one protocol.
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    /// What the last dump was about changed meanwhile: it may be neither the old nor the new whole.
    pub(super) interrupted: bool,
}

impl Connection {
    pub(super) fn open() -> io::Result<Self> {
        Self::to(NETLINK_ROUTE)
    }

    /// Of a protocol, as `netlink_sys::protocols` numbers it.
    pub(super) fn to(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, interrupted: false })
    }

    /// Sends a request and collects the answers: one, all of a dump, or none but an
    /// acknowledgement.
    pub(super) fn ask<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        request: M,
        flags: u16,
    ) -> io::Result<Vec<M>> {
        self.sequence += 1;
        self.interrupted = false;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                self.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn failed(action: &str) -> impl FnOnce(io::Error) -> KernelError + '_ {
    move |e| KernelError::system(action, e)
}

/// The interfaces of this namespace.
///
/// # Errors
/// The kernel refuses to list them.
pub fn interfaces() -> Result<Vec<Interface>, KernelError> {
    let answers = Connection::open()
        .and_then(|mut c| c.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP))
        .map_err(failed("listing interfaces"))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else { return None };
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })?;
            let veth = link.attributes.iter().any(|a| match a {
                LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => false,
            });
            let xdp = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Xdp(attributes) => XdpThere::read(attributes),
                _ => None,
            });
            let is = |what: fn(&LinkAttribute) -> bool| link.attributes.iter().any(what);
            let queue = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Qdisc(queue) => Some(queue.clone()),
                _ => None,
            });
            let address = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
                _ => None,
            });
            let mtu = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
            Some(Interface {
                address,
                mtu: mtu.unwrap_or_default(),
                name,
                veth,
                elsewhere: is(|a| matches!(a, LinkAttribute::LinkNetNsId(_))),
                part: is(|a| matches!(a, LinkAttribute::Controller(_))),
                queue: queue.unwrap_or_default(),
                xdp,
                index: link.header.index,
                up: link.header.flags.contains(LinkFlags::Up),
                loopback: link.header.flags.contains(LinkFlags::Loopback),
            })
        })
        .collect())
}

/// The index of an interface of this namespace, if it exists.
pub(crate) fn interface_index(name: &str) -> Result<Option<u32>, KernelError> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(nix::Error::ENODEV | nix::Error::ENXIO | nix::Error::EINVAL) => Ok(None),
        Err(e) => Err(KernelError::system(format!("looking for interface {name}"), e.into())),
    }
}

/// For each address that the kernel reaches by a host route (/32, /128) through one of the
/// `attached` interfaces, that interface. An interface with a default route is an uplink:
/// whoever is behind it may use any address.
pub(crate) fn expected_interfaces(
    addresses: impl Iterator<Item = IpAddr>,
    attached: &BTreeSet<u32>,
) -> Result<BTreeMap<IpAddr, u32>, KernelError> {
    let mut connection = Connection::open().map_err(failed("opening rtnetlink"))?;
    let uplinks = uplinks(&mut connection).map_err(failed("listing default routes"))?;
    let mut expected = BTreeMap::new();
    for address in addresses {
        let route = host_route(&mut connection, address)
            .map_err(|e| KernelError::system(format!("looking up the route to {address}"), e))?;
        if let Some(interface) = route
            && attached.contains(&interface)
            && !uplinks.contains(&interface)
        {
            expected.insert(address, interface);
        }
    }
    Ok(expected)
}

fn uplinks(connection: &mut Connection) -> io::Result<BTreeSet<u32>> {
    let mut uplinks = BTreeSet::new();
    for address_family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header = RouteHeader { address_family, ..RouteHeader::default() };
        for answer in connection.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            let header = &route.header;
            if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(interface) => {
                        uplinks.insert(*interface);
                    }
                    RouteAttribute::MultiPath(hops) => {
                        uplinks.extend(hops.iter().map(|h| h.interface_index));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(uplinks)
}

/// Those of these addresses to which the kernel has no route.
///
/// # Errors
/// rtnetlink does not answer.
pub fn without_route(
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<Vec<IpAddr>, KernelError> {
    let ways = ways(addresses)?.into_iter();
    Ok(ways.filter(|(_, way)| way.is_none()).map(|(address, _)| address).collect())
}

/// The interface by which the kernel would send to each of these addresses; `None`: no route.
pub(crate) fn ways(
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<Vec<(IpAddr, Option<u32>)>, KernelError> {
    let mut connection = Connection::open().map_err(failed("opening rtnetlink"))?;
    let mut ways = Vec::new();
    for address in addresses {
        let route = route_to(&mut connection, address, RouteFlags::empty())
            .map_err(|e| KernelError::system(format!("looking up the route to {address}"), e))?;
        ways.push((address, route.and_then(|route| leaves_by(&route))));
    }
    Ok(ways)
}

fn leaves_by(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The interface of the route that the kernel would take to `address`, where that route is for
/// this address alone. `RTM_F_FIB_MATCH` asks for the route itself instead of its outcome.
fn host_route(connection: &mut Connection, address: IpAddr) -> io::Result<Option<u32>> {
    let route = route_to(connection, address, RouteFlags::FibMatch)?;
    Ok(route.and_then(|route| {
        let header = &route.header;
        if header.destination_prefix_length != whole(address) || header.kind != RouteType::Unicast {
            return None;
        }
        leaves_by(&route)
    }))
}

/// Bits of an address.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// What the kernel says of the way to `address`; `None`: there is none.
fn route_to(
    connection: &mut Connection,
    address: IpAddr,
    flags: RouteFlags,
) -> io::Result<Option<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header = RouteHeader {
        address_family: match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: whole(address),
        flags,
        ..RouteHeader::default()
    };
    request.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    match connection.ask(RouteNetlinkMessage::GetRoute(request), 0) {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })),
        // Of the kinds `unreachable`, `prohibit` and `blackhole` too.
        Err(e) => match e.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::ESRCH) => Ok(None),
            Some(libc::EINVAL) if flags.is_empty() => Ok(None),
            _ => Err(e),
        },
    }
}

/// Parent of the filters of one direction (linux/pkt_sched.h).
fn parent(direction: Direction) -> TcHandle {
    const TC_H_CLSACT: u16 = 0xffff;
    let minor = match direction {
        Direction::Ingress => 0xfff2,
        Direction::Egress => 0xfff3,
    };
    TcHandle { major: TC_H_CLSACT, minor }
}

/// The filters of one direction of an interface's clsact qdisc.
pub(crate) fn filters(interface: u32, direction: Direction) -> Result<Vec<Filter>, KernelError> {
    let mut request = TcMessage::with_index(interface as i32);
    request.header.parent = parent(direction);
    let answers = Connection::open()
        .and_then(|mut c| c.ask(RouteNetlinkMessage::GetTrafficFilter(request), NLM_F_DUMP))
        .map_err(|e| KernelError::system(format!("listing filters of interface {interface}"), e))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| {
            let RouteNetlinkMessage::NewTrafficFilter(filter) = answer else { return None };
            let handle = u32::from(filter.header.handle);
            let mut row = Filter {
                priority: (filter.header.info >> 16) as u16,
                handle,
                kind: String::new(),
                program: 0,
                name: String::new(),
            };
            for attribute in filter.attributes {
                match attribute {
                    TcAttribute::Kind(kind) => row.kind = kind,
                    TcAttribute::Options(options) => {
                        for option in options {
                            match option {
                                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => row.program = id,
                                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                                    row.name = name;
                                }
                                _ => {}
                            }
                        }
                    }
                    _ => {}
                }
            }
            // Each priority also has a line without a filter.
            (handle != 0).then_some(row)
        })
        .collect())
}

/// Whether the interface has a clsact qdisc.
pub(crate) fn has_clsact(interface: u32) -> Result<bool, KernelError> {
    let request = TcMessage::with_index(interface as i32);
    let answers = Connection::open()
        .and_then(|mut c| c.ask(RouteNetlinkMessage::GetQueueDiscipline(request), NLM_F_DUMP))
        .map_err(|e| KernelError::system(format!("listing qdiscs of interface {interface}"), e))?;
    Ok(answers.iter().any(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => {
            qdisc.header.index == interface as i32
                && qdisc.attributes.contains(&TcAttribute::Kind("clsact".into()))
        }
        _ => false,
    }))
}

/// The clsact qdisc of an interface, as a request names it.
fn clsact(interface: u32) -> TcMessage {
    let mut request = TcMessage::with_index(interface as i32);
    request.header.parent = TcHandle { major: 0xffff, minor: 0xfff1 };
    request.header.handle = TcHandle { major: 0xffff, minor: 0 };
    request.attributes.push(TcAttribute::Kind("clsact".into()));
    request
}

/// Whether the kernel has the clsact qdisc and the classifier `bpf`. Adds the qdisc to the
/// interface, which should be one of a namespace made for it. The classifier is asked for a
/// filter without a program: one that knows `bpf` says `EINVAL` to that, another `ENOENT`.
pub(crate) fn knows_clsact(interface: u32) -> io::Result<bool> {
    let mut connection = Connection::open()?;
    let create = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let qdisc = RouteNetlinkMessage::NewQueueDiscipline(clsact(interface));
    match connection.ask(qdisc, create) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
        Err(e) => return Err(e),
    }
    let mut filter = TcMessage::with_index(interface as i32);
    filter.header.parent = parent(Direction::Ingress);
    // Priority 1, for packets of every protocol (ETH_P_ALL, in network order).
    filter.header.info = 1 << 16 | u32::from(3u16.to_be());
    filter.attributes.push(TcAttribute::Kind("bpf".into()));
    match connection.ask(RouteNetlinkMessage::NewTrafficFilter(filter), create) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("a filter without a program was taken")),
    }
}

/// Removes the clsact qdisc of an interface.
pub(crate) fn delete_clsact(interface: u32) -> Result<(), KernelError> {
    let request = RouteNetlinkMessage::DelQueueDiscipline(clsact(interface));
    Connection::open().and_then(|mut c| c.ask(request, NLM_F_ACK)).map(drop).map_err(|e| {
        KernelError::system(format!("removing the clsact qdisc of interface {interface}"), e)
    })
}
