//! Reading `FRAGMENTS`: where the first fragments of packets went.

use std::net::IpAddr;

use balancer_ebpf::abi::{Fragment, FragmentKey, map_names};

use super::{KernelError, View, read::each};

/// A packet whose first fragment was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentRow {
    /// Source and destination that all its fragments come with.
    pub from: [IpAddr; 2],
    /// Source and destination that they leave with.
    pub to: [IpAddr; 2],
    /// IP identification.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Met where packets leave; else where they come in.
    pub leaving: bool,
    /// Low 32 bits of jiffies when the first one came.
    pub seen_jiffies: u32,
}

impl View {
    /// Packets in pieces of which the first one was sent on.
    ///
    /// # Errors
    /// A system call on the map failed.
    pub fn fragments(&self) -> Result<Vec<FragmentRow>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::FRAGMENTS, &self.fragments, |key: &FragmentKey, value: &Fragment| {
            let address = |bytes: [u8; 16]| match key.family {
                4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                _ => IpAddr::from(bytes),
            };
            rows.push(FragmentRow {
                from: [address(key.src), address(key.dst)],
                to: [address(value.src), address(value.dst)],
                id: u32::from_be_bytes(key.id),
                proto: key.proto,
                leaving: key.leaving != 0,
                seen_jiffies: value.seen,
            });
        })?;
        Ok(rows)
    }
}
