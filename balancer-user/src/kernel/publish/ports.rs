//! The port bitmap: set before a set is live, cleared when nothing uses the port any more.

use balancer_ebpf::abi::{PORT_WORDS, PortUse, port_bit};

use super::super::mapped::Mapped;

/// A copy of the bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(Vec<u64>);

impl Ports {
    pub(crate) fn none() -> Self {
        Self(vec![0; PORT_WORDS])
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
