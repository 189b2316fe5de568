//! `INTERFACES`: between which interfaces packets may go past the stack.

use std::collections::BTreeMap;

use aya::maps::{HashMap, Map};
use balancer_ebpf::abi::map_names;

use super::{
    Datapath, KernelError, View, map_failed,
    read::{duplicate, each},
};

impl View {
    /// Number of an interface, and its bits of
    /// [`interface_flags`](balancer_ebpf::abi::interface_flags); unsorted.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn interface_flags(&self) -> Result<Vec<(u32, u32)>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::INTERFACES, &self.interfaces, |index: &u32, flags: &u32| {
            rows.push((*index, *flags));
        })?;
        Ok(rows)
    }
}

impl Datapath {
    /// Makes these the interfaces between which packets may go past the stack. What is no longer
    /// among them is taken out first.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub(super) fn set_interface_flags(
        &mut self,
        wanted: &BTreeMap<u32, u32>,
    ) -> Result<(), KernelError> {
        let failed = |error| map_failed(map_names::INTERFACES, error);
        let map = duplicate(map_names::INTERFACES, &self.view.interfaces)?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(Map::HashMap(map)).map_err(failed)?;
        let present: BTreeMap<u32, u32> = self.view.interface_flags()?.into_iter().collect();
        for index in present.keys().filter(|index| !wanted.contains_key(index)) {
            map.remove(index).map_err(failed)?;
        }
        for (index, flags) in
            wanted.iter().filter(|(index, flags)| present.get(index) != Some(flags))
        {
            map.insert(index, flags, 0).map_err(failed)?;
        }
        Ok(())
    }
}
