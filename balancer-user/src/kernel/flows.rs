//! Readers of the flow tables.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use balancer_ebpf::abi::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState, forwarding, map_names};

use super::{
    KernelError, View,
    read::{each, v4_address, v6_address},
    snippet,
};
use crate::resolve::VipKey;

/// An entry of a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// The handshake is not complete.
    pub half_open: bool,
    /// One of [`balancer_ebpf::abi::direction`].
    pub direction: u8,
    /// Source as seen on the wire in this direction.
    pub src: SocketAddr,
    /// Destination as seen on the wire in this direction.
    pub dst: SocketAddr,
    /// The VIP.
    pub vip: VipKey,
    /// State, real and so on.
    pub flow: FlowState,
    /// Where the real sees the node as its client: in the client's direction the address that it
    /// sees, in the other one the client's own.
    pub client: Option<IpAddr>,
    /// The next hop that XDP found, see [`balancer_ebpf::abi::hop_of`].
    pub hop: u32,
    /// Since a packet was last seen, to the second.
    pub idle: Duration,
}

impl FlowRow {
    /// The client as the real sees it, of an entry of the client's direction. `None`: as it is.
    pub fn seen_as(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.flow.client_port);
        let address = match (self.client, self.flow.forwarding & forwarding::HAIRPIN) {
            (Some(node), _) => node,
            (None, 0) => self.src.ip(),
            (None, _) => self.vip.addr.ip(),
        };
        Some(SocketAddr::new(address, port)).filter(|seen| *seen != self.src)
    }
}

impl View {
    /// Flows of both families, half-open ones first, in no particular order.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn flows(&self) -> Result<Vec<FlowRow>, KernelError> {
        let jiffies = snippet::jiffies().map_err(|e| KernelError::system("reading jiffies", e))?;
        let hz = self.settings.hz.max(1);
        let mut rows = Vec::new();
        self.for_each_flow(|half_open, mut row| {
            // The entry may have been written after the clock was read.
            let age = jiffies.wrapping_sub(row.flow.last_seen) as i32;
            row.idle = Duration::from_secs(u64::from(age.max(0) as u32 / hz));
            row.half_open = half_open;
            rows.push(row);
        })?;
        Ok(rows)
    }

    /// Hands every flow entry to `visit`; `idle` is not filled in. Half-open entries come
    /// first: an entry that moves to the established ones meanwhile is seen there.
    pub(crate) fn for_each_flow(
        &self,
        mut visit: impl FnMut(bool, FlowRow),
    ) -> Result<(), KernelError> {
        for (half_open, [v4, v6], names) in [
            (true, &self.half_open, [map_names::HALF_OPEN4, map_names::HALF_OPEN6]),
            (false, &self.flows, [map_names::FLOWS4, map_names::FLOWS6]),
        ] {
            each(names[0], v4, |key: &FlowKey4, flow: &Flow4| {
                let row = FlowRow {
                    half_open,
                    direction: key.direction,
                    src: v4_address(key.src, key.sport),
                    dst: v4_address(key.dst, key.dport),
                    vip: VipKey::numbered(v4_address(flow.vip, flow.vip_port), key.proto),
                    flow: flow.flow,
                    client: client(&flow.flow, flow.client.into()),
                    hop: flow.hop,
                    idle: Duration::ZERO,
                };
                visit(half_open, row);
            })?;
            each(names[1], v6, |key: &FlowKey6, flow: &Flow6| {
                let row = FlowRow {
                    half_open,
                    direction: key.direction,
                    src: v6_address(key.src, key.sport),
                    dst: v6_address(key.dst, key.dport),
                    vip: VipKey::numbered(v6_address(flow.vip, flow.vip_port), key.proto),
                    flow: flow.flow,
                    client: client(&flow.flow, flow.client.into()),
                    hop: flow.hop,
                    idle: Duration::ZERO,
                };
                visit(half_open, row);
            })?;
        }
        Ok(())
    }
}

/// The other address of the client, in flows that have two.
fn client(flow: &FlowState, address: IpAddr) -> Option<IpAddr> {
    (flow.forwarding & forwarding::SNAT != 0).then_some(address)
}
