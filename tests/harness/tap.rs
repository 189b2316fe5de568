//! A tap device with virtio headers: packets whose TCP checksum is still to be filled in, as a
//! local stack sends them and a test run cannot make them.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

nix::ioctl_write_int_bad!(tun_set_offload, 0x4004_54d0);
nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);

/// What the device takes from the kernel unfinished: sums, and TCP to be cut, of both families.
const TUN_F_CSUM: i32 = 1;
const TUN_F_TSO4: i32 = 2;
const TUN_F_TSO6: i32 = 4;
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;
const VIRTIO_NET_HDR_GSO_TCPV4: u8 = 1;
const VIRTIO_NET_HDR_GSO_TCPV6: u8 = 4;
/// `struct virtio_net_hdr`: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
const HEADER_LEN: usize = 10;

/// Longer than any frame.
const FRAME_MAX: usize = 1 << 17;

/// An open tap device; it goes when this is dropped.
pub struct Tap(File);

/// A frame that a device was given.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its checksum filled in.
    pub frame: Vec<u8>,
    /// That was left to the device.
    pub left: bool,
    /// Bytes of payload in each packet that it is to be cut into; 0: it is one.
    pub segment: u16,
}

impl Tap {
    /// Makes the device `name` in the calling thread's namespace. With `offload` it takes packets
    /// from the kernel whose checksum is still to be filled in, and that are still to be cut.
    pub fn new(name: &str, offload: bool) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all zero bytes are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        ensure!(name.len() < request.ifr_name.len(), "{name} is too long for an interface");
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: an open tun descriptor and a filled request.
        unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }.context("TUNSETIFF")?;
        let features = if offload { TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 } else { 0 };
        // SAFETY: an open tun descriptor; the argument is a number.
        unsafe { tun_set_offload(file.as_raw_fd(), features) }.context("TUNSETOFFLOAD")?;
        Ok(Self(file))
    }

    /// Sends a frame into the device. `partial`: offset of the TCP header whose checksum is still
    /// to be filled in.
    pub fn send(&mut self, frame: &[u8], partial: Option<usize>) -> Result<()> {
        self.send_whole(frame, partial, 0)
    }

    /// The same; `segment`: bytes of payload in each packet that the frame is to be cut into, or 0.
    pub fn send_whole(&mut self, frame: &[u8], partial: Option<usize>, segment: u16) -> Result<()> {
        let mut bytes = vec![0; HEADER_LEN];
        if let Some(start) = partial {
            bytes[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&u16::try_from(start)?.to_ne_bytes());
            bytes[8..10].copy_from_slice(&16u16.to_ne_bytes());
            if segment != 0 {
                let v4 = frame[12..14] == [0x08, 0x00];
                bytes[1] = if v4 { VIRTIO_NET_HDR_GSO_TCPV4 } else { VIRTIO_NET_HDR_GSO_TCPV6 };
                let headers = start + usize::from(frame[start + 12] >> 4) * 4;
                bytes[2..4].copy_from_slice(&u16::try_from(headers)?.to_ne_bytes());
                bytes[4..6].copy_from_slice(&segment.to_ne_bytes());
            }
        }
        bytes.extend(frame);
        ensure!(self.0.write(&bytes)? == bytes.len(), "a short write");
        Ok(())
    }

    /// The next frame that `wanted` says yes to.
    pub fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Received> {
        let until = Instant::now() + Duration::from_secs(10);
        let mut bytes = vec![0; FRAME_MAX];
        while Instant::now() < until {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(1000u16))? == 0 {
                continue;
            }
            let len = self.0.read(&mut bytes)?;
            ensure!(len >= HEADER_LEN, "{len} bytes are no packet");
            let (header, frame) = (&bytes[..HEADER_LEN], &bytes[HEADER_LEN..len]);
            if !wanted(frame) {
                continue;
            }
            let mut frame = frame.to_vec();
            let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            let left = header[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
            if left {
                let start = usize::from(field(6));
                let at = start + usize::from(field(8));
                let check = !ones_complement_sum(&frame[start..]);
                frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
            }
            let segment = if header[1] == 0 { 0 } else { field(4) };
            return Ok(Received { frame, left, segment });
        }
        bail!("no such frame within ten seconds")
    }
}

/// The one's complement sum of 16-bit words in network order (RFC 1071).
pub fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
