//! `INTERFACES`: between which interfaces packets may go past the stack, and for how long.

use std::{collections::BTreeMap, time::Duration};

use aya::maps::{HashMap, Map};
use balancer_ebpf::abi::{Interface, map_names};
use zerocopy::IntoBytes as _;

use super::{
    Datapath, KernelError, View, map_failed,
    read::{self, duplicate, each},
    snippet,
};

/// A moment at which both were read: the kernel's jiffies, and `CLOCK_MONOTONIC` (nanoseconds).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    jiffies: u64,
    at_ns: u64,
}

impl Ticks {
    pub(crate) fn read() -> Result<Self, KernelError> {
        let failed = |e| KernelError::system("reading jiffies", e);
        Ok(Self { jiffies: snippet::jiffies64().map_err(failed)?, at_ns: read::now()? })
    }

    /// The jiffies when `lease` is over that begins at `now` (`CLOCK_MONOTONIC`, nanoseconds).
    pub(crate) fn after(self, now: u64, lease: Duration, hz: u32) -> u64 {
        self.at(now.saturating_add(lease.as_nanos() as u64), hz)
    }

    /// The jiffies at a time of `CLOCK_MONOTONIC` after that moment, `hz` of them a second.
    fn at(self, ns: u64, hz: u32) -> u64 {
        let since = u128::from(ns.saturating_sub(self.at_ns));
        self.jiffies + (since * u128::from(hz) / 1_000_000_000) as u64
    }
}

impl View {
    /// Number of an interface, its bits of
    /// [`interface_flags`](balancer_ebpf::abi::interface_flags), and how long they still hold;
    /// `None`: for good. Unsorted.
    ///
    /// # Errors
    /// A system call on a map failed, or the kernel runs no program that reads its clock.
    pub fn interface_flags(&self) -> Result<Vec<(u32, u32, Option<Duration>)>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::INTERFACES, &self.interfaces, |index: &u32, interface: &Interface| {
            rows.push((*index, *interface));
        })?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let now = Ticks::read()?.jiffies;
        let hz = u64::from(self.settings.hz.max(1));
        let left = |until: u64| {
            (until != Interface::FOR_GOOD)
                .then(|| Duration::from_millis(until.saturating_sub(now).saturating_mul(1000) / hz))
        };
        Ok(rows.into_iter().map(|(index, it)| (index, it.flags, left(it.until))).collect())
    }
}

impl Datapath {
    /// Makes these the interfaces between which packets may go past the stack: for so long from
    /// now on, or for good. What is no longer among them is taken out first.
    ///
    /// # Errors
    /// A system call on a map failed, or the kernel runs no program that reads its clock.
    pub(super) fn set_interface_flags(
        &mut self,
        wanted: &BTreeMap<u32, u32>,
        lease: Option<Duration>,
    ) -> Result<(), KernelError> {
        let until = match lease {
            None => Interface::FOR_GOOD,
            Some(_) if wanted.is_empty() => 0,
            Some(lease) => {
                let ticks = match self.ticks {
                    Some(ticks) => ticks,
                    None => *self.ticks.insert(Ticks::read()?),
                };
                ticks.after(read::now()?, lease, self.settings.hz)
            }
        };
        let failed = |error| map_failed(map_names::INTERFACES, error);
        let map = duplicate(map_names::INTERFACES, &self.view.interfaces)?;
        let mut map: HashMap<_, u32, [u8; size_of::<Interface>()]> =
            HashMap::try_from(Map::HashMap(map)).map_err(failed)?;
        let mut present = BTreeMap::new();
        each(map_names::INTERFACES, &self.view.interfaces, |index: &u32, it: &Interface| {
            present.insert(*index, *it);
        })?;
        for index in present.keys().filter(|index| !wanted.contains_key(index)) {
            map.remove(index).map_err(failed)?;
        }
        for (index, flags) in wanted {
            let new = Interface { until, flags: *flags, unused: 0 };
            if present.get(index) != Some(&new) {
                let mut value = [0; size_of::<Interface>()];
                value.copy_from_slice(new.as_bytes());
                map.insert(index, value, 0).map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_go_on_from_the_moment_at_which_they_were_read() {
        let ticks = Ticks { jiffies: u64::from(u32::MAX), at_ns: 5_000_000_000 };
        let after = |ns| ticks.at(ns, 250);
        assert_eq!(after(5_000_000_000), u64::from(u32::MAX));
        assert_eq!(after(15_000_000_000), u64::from(u32::MAX) + 2500);
        assert_eq!(after(u64::MAX), u64::from(u32::MAX) + (u64::MAX - 5_000_000_000) / 4_000_000);
        assert_eq!(after(0), u64::from(u32::MAX), "clocks do not go back");
    }
}
