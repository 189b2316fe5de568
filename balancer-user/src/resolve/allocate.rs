//! VIP addresses for services that nobody gave one (decision D2).
//!
//! An address is a hash of (mesh, name) into the configured range, so that nodes with the same
//! policies agree without talking; collisions are resolved in name order; what was assigned
//! before stays, also while its service is away, so that no client dials another's address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    AssignedVip, DestinationKind, ResolveSettings, VipAssignments, VipOwner, inventory::Family,
};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    /// Every assignment, old ones included.
    pub(super) assigned: VipAssignments,
    /// Assignments that could not stay, because the address is somebody's now: service, old
    /// address, new one.
    pub(super) moved: Vec<(VipOwner, IpAddr, IpAddr)>,
    /// Services for which the range had no address left.
    pub(super) exhausted: Vec<(VipOwner, Family)>,
}

impl AssignedVip {
    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.v4 = Some(v4),
            IpAddr::V6(v6) => self.v6 = Some(v6),
        }
    }
}

/// Gives each service of `wanted` an address of each family that it wants. `reserved` are
/// addresses that others have: outbounds, workloads, endpoints.
pub(super) fn allocate(
    settings: &ResolveSettings,
    wanted: &BTreeMap<VipOwner, BTreeSet<Family>>,
    reserved: Vec<IpAddr>,
) -> Allocation {
    let mut taken = Taken::new(reserved);
    let mut allocation = Allocation::default();
    let mut lost: BTreeMap<(VipOwner, Family), IpAddr> = BTreeMap::new();
    for (service, before) in &settings.assigned {
        let mut kept = AssignedVip::default();
        for family in [Family::V4, Family::V6] {
            let Some(address) = before.of(family) else { continue };
            if taken.insert(address) {
                kept.set(address);
            } else {
                lost.insert((service.clone(), family), address);
            }
        }
        if kept != AssignedVip::default() {
            allocation.assigned.insert(service.clone(), kept);
        }
    }
    for (service, families) in wanted {
        for family in families {
            let entry = allocation.assigned.get(service).copied().unwrap_or_default();
            if entry.of(*family).is_some() {
                continue;
            }
            let Some(address) = free_address(settings, service, *family, &taken) else {
                allocation.exhausted.push((service.clone(), *family));
                continue;
            };
            taken.insert(address);
            allocation.assigned.entry(service.clone()).or_default().set(address);
            if let Some(old) = lost.get(&(service.clone(), *family)) {
                allocation.moved.push((service.clone(), *old, address));
            }
        }
    }
    allocation
}

/// Addresses that are somebody's.
struct Taken {
    /// Sorted, from the start.
    reserved: Vec<IpAddr>,
    /// Given out.
    given: BTreeSet<IpAddr>,
}

impl Taken {
    fn new(mut reserved: Vec<IpAddr>) -> Self {
        reserved.sort_unstable();
        reserved.dedup();
        Self { reserved, given: BTreeSet::new() }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.reserved.binary_search(&address).is_ok() || self.given.contains(&address)
    }

    /// False if it was taken before.
    fn insert(&mut self, address: IpAddr) -> bool {
        !self.contains(address) && self.given.insert(address)
    }

    fn len(&self) -> usize {
        self.reserved.len() + self.given.len()
    }
}

/// The first free address from the service's hash on, never the network's own address nor an
/// IPv4 broadcast address.
fn free_address(
    settings: &ResolveSettings,
    VipOwner { mesh, kind, name }: &VipOwner,
    family: Family,
    taken: &Taken,
) -> Option<IpAddr> {
    // A mesh name has no slash, so two services never hash the same text.
    let text = match kind {
        DestinationKind::Tags => format!("{mesh}/{name}"),
        _ => format!("{mesh}/{}/{name}", kind.name()),
    };
    let hash = xxhash_rust::xxh64::xxh64(text.as_bytes(), 0);
    let usable = usable_addresses(settings, family);
    // Among one more address than are taken, one is free.
    let tries = usable.min(taken.len() as u64 + 1);
    (0..tries)
        .map(|step| {
            let offset = 1 + ((u128::from(hash) + u128::from(step)) % u128::from(usable)) as u64;
            match family {
                Family::V4 => {
                    let (network, prefix) = settings.vips4;
                    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                    let address = (network.to_bits() & mask).wrapping_add(offset as u32);
                    IpAddr::V4(Ipv4Addr::from_bits(address))
                }
                Family::V6 => {
                    let (network, prefix) = settings.vips6;
                    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                    let address = (network.to_bits() & mask).wrapping_add(u128::from(offset));
                    IpAddr::V6(Ipv6Addr::from_bits(address))
                }
            }
        })
        .find(|address| !taken.contains(*address))
}

/// How many addresses of the range may be given out.
fn usable_addresses(settings: &ResolveSettings, family: Family) -> u64 {
    match family {
        // Without the network's own and the broadcast address.
        Family::V4 => (1u64 << (32 - settings.vips4.1.min(32))).saturating_sub(2),
        // Without the network's own, which is the routers' anycast address (RFC 4291, 2.6.1).
        Family::V6 => match 1u64.checked_shl(128 - u32::from(settings.vips6.1.min(128))) {
            Some(all) => all - 1,
            None => u64::MAX,
        },
    }
}
