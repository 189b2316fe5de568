//! Packets without ports of their own: later fragments, and ICMP.

use std::net::{IpAddr, SocketAddr};

use balancer_ebpf::reason::Reason;
use harness::wire::{self, protocol};

use super::{
    End, Ends, Fate, Met, Model, is_martian,
    read::{self, Ip},
    write,
};

/// What an ICMP error quotes.
struct Quoted {
    ip: Ip,
    ends: Ends,
}

impl Model {
    fn key(met: &Met<'_>, ip: &Ip, id: u32) -> (bool, [IpAddr; 2], u32, u8) {
        (met.leaves(), [ip.src, ip.dst], id, ip.protocol)
    }

    /// The others follow it.
    pub(super) fn first_fragment(&mut self, met: &Met<'_>, ip: &Ip, fate: &Fate) {
        let to = wire::addresses(&fate.out[ip.at..]);
        let id = ip.id.expect("there is a whole header behind it");
        self.fragments.insert(Self::key(met, ip, id), to);
    }

    /// A fragment to a VIP of which nothing is known; of others nothing need be.
    fn unknown_fragment(&self, met: &Met<'_>, ip: &Ip) -> bool {
        !met.leaves() && self.addresses.contains(&ip.dst)
    }

    pub(super) fn later_fragment(&mut self, met: &Met<'_>, ip: &Ip) -> Fate {
        let Some(id) = ip.id else { return met.untouched(Reason::Malformed) };
        let Some(to) = self.fragments.get(&Self::key(met, ip, id)) else {
            let unknown = self.unknown_fragment(met, ip);
            return met.untouched(if unknown { Reason::Fragment } else { Reason::FragmentTail });
        };
        let mut out = met.frame.to_vec();
        write::put_address(&mut out[ip.at..], End::Source, to[0]);
        write::put_address(&mut out[ip.at..], End::Destination, to[1]);
        Fate { reason: Reason::FragmentFollowed, out }
    }

    /// A whole packet, or a first fragment, that is neither TCP nor UDP.
    pub(super) fn icmp(&mut self, met: &Met<'_>, ip: &Ip) -> Fate {
        let (frame, untouched) = (met.frame, |reason| met.untouched(reason));
        let v4 = ip.src.is_ipv4();
        let number = if v4 { protocol::ICMP } else { protocol::ICMP6 };
        if ip.protocol != number || ip.payload - ip.at > 60 {
            return untouched(Reason::NotTcp);
        }
        if ip.more {
            let unknown = self.unknown_fragment(met, ip);
            return untouched(if unknown { Reason::Fragment } else { Reason::NotTcp });
        }
        let Some(header) = frame.get(ip.payload..ip.payload + 8) else {
            return untouched(Reason::NotTcp);
        };
        let errors: &[u8] = if v4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        if errors.contains(&header[0]) {
            let translated = self.icmp_error(met, ip);
            return translated.unwrap_or_else(|| untouched(Reason::NotTcp));
        }
        let request = if v4 { 8 } else { 128 };
        let plain = ip.payload - ip.at == if v4 { 20 } else { 40 };
        if header[..2] == [request, 0]
            && plain
            && !met.leaves()
            && self.addresses.contains(&ip.dst)
            && !is_martian(ip.src)
        {
            return Fate { reason: Reason::Echo, out: echo_reply(frame, ip) };
        }
        untouched(Reason::NotTcp)
    }

    /// An error that is about a known connection, translated.
    fn icmp_error(&mut self, met: &Met<'_>, ip: &Ip) -> Option<Fate> {
        let quoted = quoted(met.frame, ip)?;
        if quoted.ends.src.ip() != ip.dst {
            return None;
        }
        let about = quoted.ends.turned();
        // Whoever sent the quoted packet, and the way in which it was not yet translated.
        let (end, to, port, hairpin) = if let Some(connection) = self.connections.get(&about)
            && let Some(real) = self.reals.get(&connection.real)
            && real.generation == connection.generation
            && !met.leaves()
        {
            (End::Source, real.end, connection.back.dst.port(), connection.hairpin)
        } else {
            let back = self.back.get(&about)?;
            // Where it comes in, only the node itself may have sent it.
            if !met.leaves() && (!back.inward || back.hairpin) {
                return None;
            }
            (End::Destination, back.way.dst, back.way.src.port(), back.hairpin)
        };
        if hairpin {
            // The page promises nothing for these.
            return Some(met.found.clone());
        }
        let mut out = met.frame.to_vec();
        let before = out[ip.payload + 8..].to_vec();
        translate_quoted(&mut out, &quoted, end, to, port);
        if end == End::Source {
            readdress(&mut out, ip, End::Destination, to.ip());
        } else if ip.src == quoted.ends.dst.ip() {
            readdress(&mut out, ip, End::Source, to.ip());
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
    let is_udp = inner.protocol == protocol::UDP;
    if !(is_udp || inner.protocol == protocol::TCP) || inner.offset != 0 {
        return None;
    }
    let ports = frame.get(inner.payload..inner.payload + 4)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (src, dst) = (SocketAddr::new(inner.src, port(0)), SocketAddr::new(inner.dst, port(2)));
    Some(Quoted { ip: inner, ends: Ends { is_udp, src, dst } })
}

fn translate_quoted(out: &mut [u8], quoted: &Quoted, end: End, to: SocketAddr, port: u16) {
    let (at, is_udp) = (quoted.ip.payload, quoted.ends.is_udp);
    let old = write::put_address(&mut out[quoted.ip.at..], end, to.ip());
    let ports = write::put_ports(out, at, end, to.port(), port);
    // Not every quotation is so long.
    let sum = at + if is_udp { 6 } else { 16 };
    if let Some(check) = out.get_mut(sum..sum + 2) {
        write::adjust_sum(check, is_udp, &[(&old, &write::octets(to.ip())), (&ports.0, &ports.1)]);
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
