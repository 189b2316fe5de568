//! Addresses that VIPs have: `VIP_ADDRESSES4`, `VIP_ADDRESSES6`.
//!
//! A packet without ports, a later fragment or an echo request, has nothing to find a VIP by but
//! its address. Several VIPs may have one, so each element counts them.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::map_names;

use super::{
    KernelError, View, map_failed,
    read::{duplicate, each},
};

/// The maps, opened for writing.
pub(crate) struct Addresses {
    v4: HashMap<MapData, [u8; 4], u32>,
    v6: HashMap<MapData, [u8; 16], u32>,
}

impl Addresses {
    pub(crate) fn open(view: &View) -> Result<Self, KernelError> {
        let [v4, v6] = &view.vip_addresses;
        let [name4, name6] = [map_names::VIP_ADDRESSES4, map_names::VIP_ADDRESSES6];
        Ok(Self {
            v4: HashMap::try_from(Map::HashMap(duplicate(name4, v4)?))
                .map_err(|e| map_failed(name4, e))?,
            v6: HashMap::try_from(Map::HashMap(duplicate(name6, v6)?))
                .map_err(|e| map_failed(name6, e))?,
        })
    }

    /// One VIP more has this address.
    pub(crate) fn up(&mut self, address: IpAddr) -> Result<(), KernelError> {
        match address {
            IpAddr::V4(a) => {
                let count = count(map_names::VIP_ADDRESSES4, &self.v4, a.octets())?;
                set(map_names::VIP_ADDRESSES4, &mut self.v4, a.octets(), count + 1)
            }
            IpAddr::V6(a) => {
                let count = count(map_names::VIP_ADDRESSES6, &self.v6, a.octets())?;
                set(map_names::VIP_ADDRESSES6, &mut self.v6, a.octets(), count + 1)
            }
        }
    }

    /// One VIP less has this address.
    pub(crate) fn down(&mut self, address: IpAddr) -> Result<(), KernelError> {
        match address {
            IpAddr::V4(a) => {
                let count = count(map_names::VIP_ADDRESSES4, &self.v4, a.octets())?;
                set(map_names::VIP_ADDRESSES4, &mut self.v4, a.octets(), count.saturating_sub(1))
            }
            IpAddr::V6(a) => {
                let count = count(map_names::VIP_ADDRESSES6, &self.v6, a.octets())?;
                set(map_names::VIP_ADDRESSES6, &mut self.v6, a.octets(), count.saturating_sub(1))
            }
        }
    }

    /// Makes the counts those of the VIPs that there are: a writer may have been killed between
    /// an element of the dictionary and its address.
    pub(crate) fn repair(&mut self, view: &View) -> Result<(), KernelError> {
        let mut counts: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for (key, _) in view.vip_dictionary()? {
            *counts.entry(key.addr.ip()).or_default() += 1;
        }
        let found: BTreeMap<IpAddr, u32> = view.vip_addresses()?.into_iter().collect();
        for address in found.keys().chain(counts.keys()) {
            let (is, should) = (found.get(address), counts.get(address));
            if is == should {
                continue;
            }
            let should = should.copied().unwrap_or(0);
            match address {
                IpAddr::V4(a) => {
                    set(map_names::VIP_ADDRESSES4, &mut self.v4, a.octets(), should)?;
                }
                IpAddr::V6(a) => {
                    set(map_names::VIP_ADDRESSES6, &mut self.v6, a.octets(), should)?;
                }
            }
        }
        Ok(())
    }
}

fn count<K: aya::Pod>(
    name: &str,
    map: &HashMap<MapData, K, u32>,
    key: K,
) -> Result<u32, KernelError> {
    match map.get(&key, 0) {
        Ok(count) => Ok(count),
        Err(aya::maps::MapError::KeyNotFound) => Ok(0),
        Err(e) => Err(map_failed(name, e)),
    }
}

/// Writes a count; an address that no VIP has is not there.
fn set<K: aya::Pod>(
    name: &str,
    map: &mut HashMap<MapData, K, u32>,
    key: K,
    count: u32,
) -> Result<(), KernelError> {
    match count {
        0 => match map.remove(&key) {
            Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            result => result,
        },
        count => map.insert(key, count, 0),
    }
    .map_err(|e| map_failed(name, e))
}

impl View {
    /// Addresses that VIPs have, and how many have each.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn vip_addresses(&self) -> Result<Vec<(IpAddr, u32)>, KernelError> {
        let [v4, v6] = &self.vip_addresses;
        let mut rows = Vec::new();
        each(map_names::VIP_ADDRESSES4, v4, |key: &[u8; 4], count: &u32| {
            rows.push((IpAddr::from(*key), *count));
        })?;
        each(map_names::VIP_ADDRESSES6, v6, |key: &[u8; 16], count: &u32| {
            rows.push((IpAddr::from(*key), *count));
        })?;
        Ok(rows)
    }
}
