//! Keeps the next hops fresh that XDP programs remember: hears of every change of routes,
//! neighbours and interfaces, and has flows forget at once what was found before it.
//!
//! On its own, beside the writer: a publish may take seconds, and a packet to an Ethernet address
//! that nobody has any more is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use balancer_ebpf::abi::HopKey;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocketExt as _, TokioSocket};
use tokio::{sync::watch, time};
use tracing::{debug, info, warn};

use super::network;
use crate::kernel::{KernelError, Neighbour, NextHops, View, interfaces, neighbours};

/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`,
/// `_IPV6_ROUTE`, `_IPV6_RULE`, `_IPV4_NETCONF`, `_IPV6_NETCONF`, `_NEXTHOP` (linux/rtnetlink.h).
const GROUPS: [u32; 11] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// How often it is said that somebody looks, and for how long that holds.
const RENEWAL: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(4);
/// How long after a change the table of next hops follows it: changes come in crowds.
const SETTLE: Duration = Duration::from_millis(20);
/// What the kernel does not tell of (a path MTU that was learned, for one) is looked for so often.
const AGAIN: Duration = Duration::from_secs(10);

/// The maps, once there are some.
pub(super) type Maps = watch::Receiver<Option<Arc<View>>>;

/// Keeps next hops fresh, for ever, while programs are attached that remember some.
pub(super) async fn follow(maps: Maps) {
    let mut said = None;
    let mut left_out = 0;
    let mut fresh: Option<Fresh> = None;
    let mut renewal = time::interval(RENEWAL);
    renewal.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            heard = hear(&fresh) => match (heard, &mut fresh) {
                (Ok(bytes), Some(fresh)) => {
                    fresh.note(&bytes);
                    Ok(())
                }
                (Ok(_), None) => Ok(()),
                // More than the socket holds: what was lost is looked for.
                (Err(error), Some(fresh)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    fresh.lost()
                }
                (Err(error), _) => Err(KernelError::system("hearing of next hops", error)),
            },
            () = settled(&fresh) => fresh.as_mut().map_or(Ok(()), Fresh::settle),
            _ = renewal.tick() => look(&mut fresh, maps.borrow().as_ref()),
        };
        match done {
            Ok(()) => said = None,
            Err(error) => {
                // Flows ask the kernel; the next look begins anew.
                if let Some(fresh) = fresh.take() {
                    fresh.hops.end();
                }
                let message = error.to_string();
                if said.as_ref() != Some(&message) {
                    warn!("next hops cannot be kept fresh, XDP asks for each packet's: {message}");
                }
                said = Some(message);
            }
        }
        let now = fresh.as_ref().map_or(0, |fresh| fresh.left_out);
        if now != left_out && now != 0 {
            warn!(hops = now, "next hops find no room in NEXT_HOPS, XDP asks for each packet's");
        }
        left_out = now;
    }
}

/// What is told; never, where nobody listens.
async fn hear(fresh: &Option<Fresh>) -> io::Result<Vec<u8>> {
    match fresh {
        Some(fresh) => fresh.socket.recv_from_full().await.map(|(bytes, _)| bytes),
        None => std::future::pending().await,
    }
}

/// When changes have come to rest; never, where there were none.
async fn settled(fresh: &Option<Fresh>) {
    match fresh.as_ref().and_then(|fresh| fresh.changed) {
        Some(since) => time::sleep_until((since + SETTLE).into()).await,
        None => std::future::pending().await,
    }
}

/// Begins where there is something to keep fresh, ends where there is not, and says that somebody
/// looks.
fn look(fresh: &mut Option<Fresh>, maps: Option<&Arc<View>>) -> Result<(), KernelError> {
    let devices = match maps {
        // By others a frame goes back at most, and those ask each time.
        Some(view) => {
            let devices = view.devices()?.into_iter();
            devices.filter(|(_, device)| device.takes_frames != 0).map(|(index, _)| index).collect()
        }
        None => BTreeSet::new(),
    };
    let Some(view) = maps.filter(|_| !devices.is_empty()) else {
        if let Some(fresh) = fresh.take() {
            fresh.hops.end();
            info!("no XDP program remembers next hops any more");
        }
        return Ok(());
    };
    let same = |fresh: &mut Fresh| Arc::ptr_eq(fresh.hops.view(), view);
    let fresh = match fresh.take_if(|fresh| same(fresh)) {
        Some(known) => fresh.insert(known),
        None => {
            let begun = fresh.insert(Fresh::begin(view, devices.clone())?);
            info!(hops = begun.known.len(), "next hops are kept fresh for XDP");
            begun
        }
    };
    if fresh.devices != devices {
        fresh.devices = devices;
        fresh.settle()?;
    }
    if fresh.forgotten.elapsed() >= AGAIN {
        fresh.forget();
    }
    fresh.hops.renew(LEASE)
}

/// What is known, and where changes of it are heard of.
struct Fresh {
    hops: NextHops,
    socket: TokioSocket,
    devices: BTreeSet<u32>,
    known: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// When the first change came that the table does not know of yet.
    changed: Option<Instant>,
    forgotten: Instant,
    left_out: usize,
}

impl Fresh {
    fn begin(view: &Arc<View>, devices: BTreeSet<u32>) -> Result<Self, KernelError> {
        // Heard before the first look: nothing falls in between.
        let socket = network::listen_to(&GROUPS)
            .map_err(|e| KernelError::system("hearing of next hops", e))?;
        let mut fresh = Self {
            hops: NextHops::take_over(Arc::clone(view))?,
            socket,
            devices,
            known: BTreeMap::new(),
            changed: None,
            forgotten: Instant::now(),
            left_out: 0,
        };
        fresh.lost()?;
        Ok(fresh)
    }

    fn forget(&mut self) {
        self.hops.forget();
        self.forgotten = Instant::now();
    }

    /// Anything may have changed.
    fn lost(&mut self) -> Result<(), KernelError> {
        self.forget();
        self.known.clear();
        for neighbour in neighbours()? {
            self.learn(neighbour);
        }
        self.settle()
    }

    /// True: that is new.
    fn learn(&mut self, Neighbour { interface, address, ethernet }: Neighbour) -> bool {
        let key = (interface, address);
        match ethernet {
            Some(ethernet) => self.known.insert(key, ethernet) != Some(ethernet),
            None => self.known.remove(&key).is_some(),
        }
    }

    /// Notes what the kernel tells. Most of it is that a neighbour was heard of once more.
    fn note(&mut self, mut bytes: &[u8]) {
        let mut changed = false;
        while !bytes.is_empty() {
            changed |= match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                Ok(message) => match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(told)) => {
                        Neighbour::read(&told).is_some_and(|told| self.learn(told))
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(told)) => {
                        let gone = |told| Neighbour { ethernet: None, ..told };
                        Neighbour::read(&told).is_some_and(|told| self.learn(gone(told)))
                    }
                    _ => true,
                },
                // Of a kind that is not known here (next hops of their own, `RTM_NEWNEXTHOP`).
                Err(error) => {
                    debug!(%error, "the kernel tells of something else about routes");
                    true
                }
            };
            bytes = bytes.get(length(bytes)..).unwrap_or_default();
        }
        if changed {
            self.forget();
            self.changed.get_or_insert_with(Instant::now);
        }
    }

    /// Has the table follow what is known.
    fn settle(&mut self) -> Result<(), KernelError> {
        self.changed = None;
        let present = interfaces()?;
        let of: BTreeMap<u32, ([u8; 6], u32)> = present
            .iter()
            .filter(|interface| self.devices.contains(&interface.index))
            .filter_map(|interface| Some((interface.index, (interface.address?, interface.mtu))))
            .collect();
        let hops = self.known.iter().filter_map(|(&(interface, _), &to)| {
            let &(from, mtu) = of.get(&interface)?;
            Some((HopKey { to, from, interface }, mtu))
        });
        self.left_out = self.hops.set(&hops.collect())?;
        Ok(())
    }
}

/// Bytes of the first of some messages, as its header says (`struct nlmsghdr`, linux/netlink.h).
fn length(messages: &[u8]) -> usize {
    const HEADER: usize = 16;
    let said = messages.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    said.next_multiple_of(4).max(HEADER)
}
