//! The port bitmap: set before a set is live, cleared when nothing uses the port any more.

use std::collections::BTreeMap;

use balancer_ebpf::abi::{PORT_WORDS, PortUse, port_bit};

use super::super::mapped::Mapped;

/// A copy of the bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(Vec<u64>);

impl Default for Ports {
    fn default() -> Self {
        Self(vec![0; PORT_WORDS])
    }
}

/// How many VIPs and reals use each port.
#[derive(Debug, Default)]
pub(crate) struct PortUses {
    vips: BTreeMap<u16, u32>,
    reals: BTreeMap<u16, u32>,
    bits: Ports,
}

impl PortUses {
    /// The ports that any of them uses.
    pub(crate) fn bits(&self) -> &Ports {
        &self.bits
    }

    pub(crate) fn add(&mut self, port: u16, used: PortUse) {
        *self.counts(used).entry(port).or_insert(0) += 1;
        self.bits.add(port, used);
    }

    pub(crate) fn remove(&mut self, port: u16, used: PortUse) {
        let counts = self.counts(used);
        let left = counts.get(&port).map_or(0, |uses| uses - 1);
        if left > 0 {
            counts.insert(port, left);
        } else {
            counts.remove(&port);
            self.bits.remove(port, used);
        }
    }

    fn counts(&mut self, used: PortUse) -> &mut BTreeMap<u16, u32> {
        match used {
            PortUse::Vip => &mut self.vips,
            PortUse::Real => &mut self.reals,
        }
    }
}

impl Ports {
    fn remove(&mut self, port: u16, used: PortUse) {
        let (word, bit) = port_bit(port, used);
        self.0[word as usize] &= !bit;
    }

    pub(crate) fn add(&mut self, port: u16, used: PortUse) {
        let (word, bit) = port_bit(port, used);
        self.0[word as usize] |= bit;
    }

    /// Sets in the map what is in here. Returns the number of words that changed.
    pub(crate) fn set_in(&self, map: &Mapped) -> usize {
        self.change(map, |mine, theirs| mine | theirs)
    }

    /// Makes the map equal to this. Returns the number of words that changed.
    pub(crate) fn replace_in(&self, map: &Mapped) -> usize {
        self.change(map, |mine, _| mine)
    }

    /// Whether the map has bits that are not in here.
    pub(crate) fn lacks_some_of(&self, map: &Mapped) -> bool {
        self.0.iter().enumerate().any(|(at, word)| map.load(at) & !word != 0)
    }

    fn change(&self, map: &Mapped, to: impl Fn(u64, u64) -> u64) -> usize {
        let mut changed = 0;
        for (at, word) in self.0.iter().enumerate() {
            let old = map.load(at);
            let new = to(*word, old);
            if new != old {
                map.store(at, new);
                changed += 1;
            }
        }
        changed
    }
}
