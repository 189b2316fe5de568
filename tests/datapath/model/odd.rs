//! Packets without ports of their own: later fragments, and ICMP.

use std::net::{IpAddr, SocketAddr};

use balancer_ebpf::reason::Reason;
use harness::wire::{self, protocol};

use super::{
    End, Fate, Model, is_martian,
    read::{self, Ip},
    write,
};
use crate::world::Hook;

/// What an ICMP error quotes.
struct Quoted {
    ip: Ip,
    src: SocketAddr,
    dst: SocketAddr,
}

impl Model {
    fn key(hook: Hook, ip: &Ip, id: u32) -> (bool, [IpAddr; 2], u32, u8) {
        (hook == Hook::Egress, [ip.src, ip.dst], id, ip.protocol)
    }

    /// The others follow it.
    pub(super) fn first_fragment(&mut self, hook: Hook, ip: &Ip, fate: &Fate) {
        let to = wire::addresses(&fate.out[ip.at..]);
        let id = ip.id.expect("there is a whole header behind it");
        self.fragments.insert(Self::key(hook, ip, id), to);
    }

    /// A fragment to a VIP of which nothing is known; of others nothing need be.
    fn unknown_fragment(&self, hook: Hook, ip: &Ip) -> bool {
        hook == Hook::Ingress && self.addresses.contains(&ip.dst)
    }

    pub(super) fn later_fragment(&mut self, hook: Hook, frame: &[u8], ip: &Ip) -> Fate {
        let mut out = frame.to_vec();
        let Some(id) = ip.id else { return Fate { reason: Reason::Malformed, out } };
        let Some(to) = self.fragments.get(&Self::key(hook, ip, id)) else {
            let unknown = self.unknown_fragment(hook, ip);
            let reason = if unknown { Reason::Fragment } else { Reason::FragmentTail };
            return Fate { reason, out };
        };
        write::put_address(&mut out[ip.at..], End::Source, to[0]);
        write::put_address(&mut out[ip.at..], End::Destination, to[1]);
        Fate { reason: Reason::FragmentFollowed, out }
    }

    /// A whole packet, or a first fragment, that is not TCP.
    pub(super) fn icmp(&mut self, hook: Hook, frame: &[u8], ip: &Ip) -> Fate {
        let untouched = |reason| Fate { reason, out: frame.to_vec() };
        let v4 = ip.src.is_ipv4();
        let number = if v4 { protocol::ICMP } else { protocol::ICMP6 };
        if ip.protocol != number || ip.payload - ip.at > 60 {
            return untouched(Reason::NotTcp);
        }
        if ip.more {
            let unknown = self.unknown_fragment(hook, ip);
            return untouched(if unknown { Reason::Fragment } else { Reason::NotTcp });
        }
        let Some(header) = frame.get(ip.payload..ip.payload + 8) else {
            return untouched(Reason::NotTcp);
        };
        let errors: &[u8] = if v4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        if errors.contains(&header[0]) {
            let translated = self.icmp_error(hook, frame, ip);
            return translated.unwrap_or_else(|| untouched(Reason::NotTcp));
        }
        let request = if v4 { 8 } else { 128 };
        let plain = ip.payload - ip.at == if v4 { 20 } else { 40 };
        if header[..2] == [request, 0]
            && plain
            && hook == Hook::Ingress
            && self.addresses.contains(&ip.dst)
            && !is_martian(ip.src)
        {
            return Fate { reason: Reason::Echo, out: echo_reply(frame, ip) };
        }
        untouched(Reason::NotTcp)
    }

    /// An error that is about a known connection, translated.
    fn icmp_error(&mut self, hook: Hook, frame: &[u8], ip: &Ip) -> Option<Fate> {
        let quoted = quoted(frame, ip)?;
        if quoted.src.ip() != ip.dst {
            return None;
        }
        // Whoever sent the quoted packet, and the way in which it was not yet translated.
        let (end, to, port) = if hook == Hook::Egress {
            let ((client, vip), _) = *self.back.get(&(quoted.dst, quoted.src))?;
            (End::Destination, vip, client.port())
        } else {
            let connection = self.connections.get(&(quoted.dst, quoted.src))?;
            let real = self.reals.get(&connection.real)?;
            if real.generation != connection.generation {
                return None;
            }
            (End::Source, real.end, connection.port)
        };
        let mut out = frame.to_vec();
        let before = frame[ip.payload + 8..].to_vec();
        translate_quoted(&mut out, &quoted, end, to, port);
        if hook == Hook::Egress {
            if ip.src == quoted.dst.ip() {
                readdress(&mut out, ip, End::Source, to.ip());
            }
        } else {
            readdress(&mut out, ip, End::Destination, to.ip());
        }
        let after = out[ip.payload + 8..].to_vec();
        write::adjust(&mut out[ip.payload + 2..ip.payload + 4], &even(before), &even(after));
        Some(Fate { reason: Reason::IcmpError, out })
    }
}

fn even(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// The packet that an error is about, as far as its ports.
fn quoted(frame: &[u8], ip: &Ip) -> Option<Quoted> {
    let inner = read::ip(frame, ip.payload + 8, ip.src.is_ipv4()).ok()?;
    if inner.protocol != protocol::TCP || inner.offset != 0 {
        return None;
    }
    let ports = frame.get(inner.payload..inner.payload + 4)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (src, dst) = (SocketAddr::new(inner.src, port(0)), SocketAddr::new(inner.dst, port(2)));
    Some(Quoted { ip: inner, src, dst })
}

fn translate_quoted(out: &mut [u8], quoted: &Quoted, end: End, to: SocketAddr, port: u16) {
    let at = quoted.ip.payload;
    let old = write::put_address(&mut out[quoted.ip.at..], end, to.ip());
    let ports = out[at..at + 4].to_vec();
    let (source, destination) =
        if end == End::Source { (to.port(), port) } else { (port, to.port()) };
    let new = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    out[at..at + 4].copy_from_slice(&new);
    if out.len() >= at + 18 {
        let check = &mut out[at + 16..at + 18];
        write::adjust(check, &old, &write::octets(to.ip()));
        write::adjust(check, &ports, &new);
    }
}

/// Changes an address outside; ICMPv6 sums it up.
fn readdress(out: &mut [u8], ip: &Ip, end: End, to: IpAddr) {
    let old = write::put_address(&mut out[ip.at..], end, to);
    if to.is_ipv6() {
        write::adjust(&mut out[ip.payload + 2..ip.payload + 4], &old, &write::octets(to));
    }
}

/// The request, turned round, with a fresh hop count.
fn echo_reply(frame: &[u8], ip: &Ip) -> Vec<u8> {
    let mut out = write::turned_round(frame);
    let v4 = ip.src.is_ipv4();
    let kind = [out[ip.payload], 0];
    out[ip.payload] = if v4 { 0 } else { 129 };
    let answer = [out[ip.payload], 0];
    write::adjust(&mut out[ip.payload + 2..ip.payload + 4], &kind, &answer);
    let packet = &mut out[ip.at..];
    if v4 {
        let before = [packet[8], packet[9]];
        packet[8] = 64;
        let after = [packet[8], packet[9]];
        write::adjust(&mut packet[10..12], &before, &after);
        packet[12..20].rotate_left(4);
    } else {
        packet[7] = 64;
        packet[8..40].rotate_left(16);
    }
    out
}
