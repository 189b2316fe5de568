//! `HOPS`, `NEXT_HOPS`, `HOP_IDS`: next hops that XDP programs need not ask for again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::{HOPS_MAX, HopKey, Hops, NextHop, map_names};
use zerocopy::IntoBytes as _;

use super::{
    KernelError, View,
    direct::Ticks,
    layout::Pins,
    map_failed,
    mapped::Access,
    read::{self, duplicate, each},
    view::mapped,
};

/// Words of `HOPS`.
const UNTIL: usize = 0;
const GENERATION: usize = 1;

/// How long a number stays unused that was taken from a next hop: a program that has read the
/// generation before is long done with it.
const REST: Duration = Duration::from_secs(1);

impl View {
    /// What holds of the next hops that flows remember.
    pub(crate) fn hops(&self) -> Hops {
        self.hops.read(0)
    }

    /// Next hops and their numbers, unsorted.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn hop_ids(&self) -> Result<Vec<(HopKey, u32)>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::HOP_IDS, &self.hop_ids, |key: &HopKey, id: &u32| rows.push((*key, *id)))?;
        Ok(rows)
    }

    /// Has flows forget their next hops: the kernel's routes, neighbours or interfaces have
    /// changed, or interfaces that XDP can send to.
    pub(crate) fn forget_hops(&self) {
        self.hops.add_release(GENERATION, 1);
    }
}

/// [`View::forget_hops`] for those who have opened no maps.
pub(super) fn forget_pinned(pins: &Pins) -> Result<(), KernelError> {
    let name = map_names::HOPS;
    let map = MapData::from_pin(pins.map(name)).map_err(|error| map_failed(name, error))?;
    mapped(name, &map, Access::Write)?.add_release(GENERATION, 1);
    Ok(())
}

/// Whoever keeps next hops fresh. There is one, as there is one that writes.
pub struct NextHops {
    view: Arc<View>,
    ticks: Ticks,
    known: BTreeMap<HopKey, (u32, u32)>,
    /// Numbers that were never used begin here.
    unused: u32,
    resting: Vec<(Instant, u32)>,
    numbers: HashMap<MapData, [u8; size_of::<HopKey>()], u32>,
}

impl NextHops {
    /// Takes over from whoever looked after them before: all is forgotten.
    ///
    /// # Errors
    /// A system call on a map failed, or the kernel runs no program that reads its clock.
    pub fn take_over(view: Arc<View>) -> Result<Self, KernelError> {
        view.hops.store_release(UNTIL, 0);
        view.forget_hops();
        let numbers = duplicate(map_names::HOP_IDS, &view.hop_ids)?;
        let mut this = Self {
            numbers: HashMap::try_from(Map::HashMap(numbers)).map_err(failed)?,
            ticks: Ticks::read()?,
            known: BTreeMap::new(),
            unused: 1,
            resting: Vec::new(),
            view,
        };
        for (key, _) in this.view.hop_ids()? {
            this.remove(&key)?;
        }
        Ok(this)
    }

    /// The maps that they are in.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Something has changed: flows ask the kernel again.
    pub fn forget(&self) {
        self.view.forget_hops();
    }

    /// Flows may rely on what they remember, for so long from now on.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn renew(&self, lease: Duration) -> Result<(), KernelError> {
        let until = self.ticks.after(read::now()?, lease, self.view.settings.hz);
        self.view.hops.store_release(UNTIL, until);
        Ok(())
    }

    /// Flows ask the kernel, always.
    pub fn end(&self) {
        self.view.hops.store_release(UNTIL, 0);
    }

    /// Makes these the next hops that may be remembered, each with its interface's MTU. Those that
    /// find no room are asked for at each packet. How many found none.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn set(&mut self, wanted: &BTreeMap<HopKey, u32>) -> Result<usize, KernelError> {
        let gone: Vec<_> = self
            .known
            .iter()
            .filter(|(key, (_, mtu))| wanted.get(key) != Some(mtu))
            .map(|(key, (id, _))| (*key, *id))
            .collect();
        if !gone.is_empty() {
            for (key, _) in &gone {
                self.remove(key)?;
                self.known.remove(key);
            }
            // After nobody finds the numbers any more.
            self.forget();
            let now = Instant::now();
            self.resting.extend(gone.into_iter().map(|(_, id)| (now, id)));
        }
        let mut left_out = 0;
        for (key, mtu) in wanted {
            if self.known.contains_key(key) {
                continue;
            }
            let Some(id) = self.number() else {
                left_out += 1;
                continue;
            };
            // The number last: whoever finds it finds what it stands for.
            let value = NextHop { key: *key, mtu: *mtu, unused: 0 };
            self.view.next_hops.write(id as usize, &value);
            self.numbers.insert(bytes(key), id, 0).map_err(failed)?;
            self.known.insert(*key, (id, *mtu));
        }
        Ok(left_out)
    }

    fn number(&mut self) -> Option<u32> {
        let rested = self.resting.iter().position(|(since, _)| since.elapsed() >= REST);
        if let Some(at) = rested {
            return Some(self.resting.swap_remove(at).1);
        }
        let id = self.unused;
        if id as usize >= HOPS_MAX {
            return None;
        }
        self.unused += 1;
        Some(id)
    }

    fn remove(&mut self, key: &HopKey) -> Result<(), KernelError> {
        self.numbers.remove(&bytes(key)).map_err(failed)
    }
}

fn failed(error: aya::maps::MapError) -> KernelError {
    map_failed(map_names::HOP_IDS, error)
}

fn bytes(key: &HopKey) -> [u8; size_of::<HopKey>()] {
    let mut bytes = [0; size_of::<HopKey>()];
    bytes.copy_from_slice(key.as_bytes());
    bytes
}
