//! The packets: what the client sends and what the real answers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::PacketBuilder;

use crate::{
    driver::{Order, names},
    step::{self, Step},
};

/// What kind of TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    /// With 100 bytes of payload.
    Data,
    Rst,
}

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Real,
}

/// A packet that stands for the same one of many clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) sender: Sender,
    pub(crate) order: Order,
    /// Address of the first client.
    pub(crate) client: IpAddr,
    /// The end that all share: the VIP, or a real.
    pub(crate) other: SocketAddr,
    /// What the clients dialled.
    pub(crate) vip: SocketAddr,
    /// As XDP gets it.
    pub(crate) xdp: bool,
}

impl Packet {
    /// The driver's program for it.
    pub(crate) fn program(&self) -> String {
        let name = match (self.sender, self.client) {
            (Sender::Client, IpAddr::V4(_)) => names::FROM_CLIENTS4,
            (Sender::Client, IpAddr::V6(_)) => names::FROM_CLIENTS6,
            (Sender::Real, IpAddr::V4(_)) => names::TO_CLIENTS4,
            (Sender::Real, IpAddr::V6(_)) => names::TO_CLIENTS6,
        };
        if self.xdp { format!("{name}{}", names::XDP_SUFFIX) } else { name.to_owned() }
    }

    /// What the driver restores; it starts with flow 0. The checksums are those of flow 0: the
    /// programs change them by the difference and look at neither.
    pub(crate) fn step(&self) -> Step {
        let check = u32::from(u16::from_ne_bytes([0x12, 0x34]));
        Step {
            fixed_addr: words(self.other.ip()),
            fixed_port: self.other.port().into(),
            client_addr: words(self.client),
            ip_check: check,
            tcp_check: check,
            ..Step::default()
        }
    }

    /// The client of a flow.
    pub(crate) fn client_of(&self, flow: u32) -> SocketAddr {
        let offset = step::address_offset(flow);
        let addr = match self.client {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) + offset).into()),
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) + u128::from(offset)).into()),
        };
        SocketAddr::new(addr, step::port(flow))
    }

    /// The frame of flow 0.
    pub(crate) fn frame(&self) -> Result<Vec<u8>> {
        let client = self.client_of(0);
        match self.sender {
            Sender::Client => frame(self.kind, client, self.other),
            Sender::Real => frame(self.kind, self.other, client),
        }
    }
}

/// An Ethernet frame with right checksums.
pub(crate) fn frame(kind: Kind, src: SocketAddr, dst: SocketAddr) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0; 6]);
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
        _ => bail!("{src} and {dst} are of different families"),
    };
    let tcp = ip.tcp(src.port(), dst.port(), 1000, 0xffff);
    let (tcp, payload): (_, &[u8]) = match kind {
        Kind::Syn => (tcp.syn(), &[]),
        Kind::SynAck => (tcp.syn().ack(2000), &[]),
        Kind::Data => (tcp.ack(2000), &[7; 100]),
        Kind::Rst => (tcp.rst(), &[]),
    };
    let mut frame = Vec::with_capacity(tcp.size(payload.len()));
    tcp.write(&mut frame, payload)?;
    Ok(frame)
}

/// Destination of a frame that [`frame`] made, perhaps translated since.
pub(crate) fn destination(frame: &[u8]) -> Option<SocketAddr> {
    let ip = frame.get(14..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let addr = <[u8; 4]>::try_from(ip.get(16..20)?).ok()?;
            Some((addr, port(22)?).into())
        }
        [0x86, 0xdd] => {
            let addr = <[u8; 16]>::try_from(ip.get(24..40)?).ok()?;
            Some((addr, port(42)?).into())
        }
        _ => None,
    }
}

/// An address as words in network order, IPv4 in the first.
fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(a) => [u32::from_ne_bytes(a.octets()), 0, 0, 0],
        IpAddr::V6(a) => zerocopy::transmute!(a.octets()),
    }
}
