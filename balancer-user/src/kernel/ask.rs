//! Asking the loaded program itself where a connection would go.

use std::net::{IpAddr, SocketAddr};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use balancer_ebpf::{abi::program_names, reason::Reason};

use super::{KernelError, View};
use crate::resolve::VipProtocol;

/// A connection as its client opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Client address and port.
    pub src: SocketAddr,
    /// Address and port dialled; of the same family.
    pub dst: SocketAddr,
    /// What they are dialled with.
    pub protocol: VipProtocol,
}

/// What the program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Why.
    pub reason: Reason,
    /// Where the first packet would go: another address than was dialled where it is translated.
    pub destination: SocketAddr,
    /// The source that the destination would see.
    pub source: SocketAddr,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

impl View {
    /// Hands the first packet of this tuple (of TCP a SYN) to the pinned program `balancer_ask` (`BPF_PROG_TEST_RUN`),
    /// which records nothing. The packet comes in on the loopback interface, so an expected
    /// interface of the source is not what decides the answer.
    ///
    /// # Errors
    /// Families differ, no such pin, or the kernel refuses the run.
    pub fn ask(&self, tuple: &Tuple) -> Result<Answer, KernelError> {
        let packet = first_packet(tuple)?;
        let action = || format!("asking program {}", program_names::ASK);
        let path = self.pins.program(program_names::ASK);
        let program =
            SchedClassifier::from_pin(path).map_err(|e| super::program_failed(action(), e))?;
        let mut out = vec![0; packet.len() + 256];
        let run = program
            .test_run(TestRunOptions {
                data_in: Some(&packet),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            })
            .map_err(|e| super::program_failed(action(), e))?;
        let reason = Reason::ALL.get(run.return_value as usize).copied().ok_or_else(|| {
            KernelError::Object(format!(
                "{} returned {}, which is no reason",
                program_names::ASK,
                run.return_value
            ))
        })?;
        let (source, destination) = addresses(&out).ok_or_else(|| {
            KernelError::Object(format!("{} gave back no such packet", program_names::ASK))
        })?;
        Ok(Answer { reason, destination, source })
    }
}

/// An Ethernet frame with a SYN (RFC 9293, 3.1), or with an empty datagram (RFC 768), checksums
/// right.
fn first_packet(tuple: &Tuple) -> Result<Vec<u8>, KernelError> {
    let (mut header, checksum_at) = match tuple.protocol {
        VipProtocol::Tcp => {
            let mut tcp = vec![0u8; TCP_HEADER];
            tcp[12] = (TCP_HEADER as u8 / 4) << 4;
            tcp[13] = 0x02;
            tcp[14..16].copy_from_slice(&0xffffu16.to_be_bytes());
            (tcp, 16)
        }
        VipProtocol::Udp => (vec![0, 0, 0, 0, 0, UDP_HEADER as u8, 0, 0], 6),
    };
    header[0..2].copy_from_slice(&tuple.src.port().to_be_bytes());
    header[2..4].copy_from_slice(&tuple.dst.port().to_be_bytes());
    let proto = tuple.protocol.number();
    let pseudo = [0, proto, 0, header.len() as u8];
    let mut frame = vec![0u8; 12];
    match (tuple.src.ip(), tuple.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([0x08, 0x00]);
            let mut ip = [0u8; IPV4];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((IPV4 + header.len()) as u16).to_be_bytes());
            ip[8] = 64;
            ip[9] = proto;
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..20].copy_from_slice(&dst.octets());
            let sum = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&sum);
            let sum = checksum(&[&ip[12..], &pseudo, &header]);
            header[checksum_at..][..2].copy_from_slice(&sum);
            frame.extend(ip);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd]);
            let mut ip = [0u8; IPV6];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&(header.len() as u16).to_be_bytes());
            ip[6] = proto;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
            let sum = checksum(&[&ip[8..], &pseudo, &header]);
            header[checksum_at..][..2].copy_from_slice(&sum);
            frame.extend(ip);
        }
        _ => {
            return Err(KernelError::Tuple(format!(
                "{} and {} are of different families",
                tuple.src, tuple.dst
            )));
        }
    }
    frame.extend(header);
    Ok(frame)
}

/// Source and destination of a frame as [`first_packet`] makes it.
fn addresses(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(ETHERNET..)?;
    let port = |tcp: &[u8], at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let tcp = ip.get(IPV4..)?;
            let at = |i: usize| <[u8; 4]>::try_from(ip.get(i..i + 4)?).ok();
            Some((
                SocketAddr::from((at(12)?, port(tcp, 0)?)),
                SocketAddr::from((at(16)?, port(tcp, 2)?)),
            ))
        }
        [0x86, 0xdd] => {
            let tcp = ip.get(IPV6..)?;
            let at = |i: usize| <[u8; 16]>::try_from(ip.get(i..i + 16)?).ok();
            Some((
                SocketAddr::from((at(8)?, port(tcp, 0)?)),
                SocketAddr::from((at(24)?, port(tcp, 2)?)),
            ))
        }
        _ => None,
    }
}

/// Internet checksum (RFC 1071) over parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|p| p.chunks_exact(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str, protocol: VipProtocol) -> Tuple {
        Tuple { src: src.parse().expect("src"), dst: dst.parse().expect("dst"), protocol }
    }

    #[test]
    fn first_packet_of_both_families_has_right_checksums_and_reads_back() {
        for (src, dst) in
            [("10.0.0.1:1234", "240.0.0.1:80"), ("[fd00::1]:1234", "[fd62:616c::1]:80")]
        {
            for protocol in VipProtocol::ALL {
                let tuple = tuple(src, dst, protocol);
                let frame = first_packet(&tuple).expect("frame");
                assert_eq!(addresses(&frame), Some((tuple.src, tuple.dst)));
                let (ip, pseudo) = if tuple.src.is_ipv4() { (IPV4, 12) } else { (IPV6, 8) };
                let header = &frame[ETHERNET..ETHERNET + ip];
                if tuple.src.is_ipv4() {
                    assert_eq!(checksum(&[header]), [0, 0]);
                }
                let rest = &frame[ETHERNET + ip..];
                let numbers = [0, protocol.number(), 0, rest.len() as u8];
                assert_eq!(checksum(&[&header[pseudo..], &numbers, rest]), [0, 0]);
            }
        }
    }

    #[test]
    fn mixed_families_are_refused() {
        let error =
            first_packet(&tuple("10.0.0.1:1", "[fd00::1]:2", VipProtocol::Tcp)).expect_err("mixed");
        assert!(error.to_string().contains("different families"), "{error}");
    }
}
