//! The ids in use, read back from the maps.

use std::{collections::BTreeSet, net::IpAddr};

use balancer_ebpf::abi::{ID_FIRST, REAL_FIRST, Real, SourceEntry, map_names, route_kind};

use crate::compile::{Assignment, CounterRun, Quarantine};

use super::{
    KernelError, View,
    read::{each_raw, real_address},
    view::entries,
};

impl View {
    /// The ids of the published set, and those that must not be given out.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn assignment(&self) -> Result<Assignment, KernelError> {
        Ok(self.assignment_and_sweep()?.0)
    }

    /// Also says whether flows were asked which counters they name: then free counters may not
    /// be zero.
    pub(crate) fn assignment_and_sweep(&self) -> Result<(Assignment, bool), KernelError> {
        let mut assignment = self.consistent(|epoch| self.assigned_at(epoch))?;
        for id in REAL_FIRST..self.real_capacity() as u32 {
            let real: Real = self.reals.read(id as usize);
            if let Some(addr) = real_address(&real) {
                assignment.reals.insert(addr, (id, real.generation));
            } else if real.generation != 0 {
                assignment.free_real_generations.insert(id, real.generation);
            }
        }
        let (quarantine, swept) = self.quarantine(&assignment)?;
        assignment.quarantine = quarantine;
        Ok((assignment, swept))
    }

    fn assigned_at(&self, epoch: u64) -> Result<Assignment, KernelError> {
        let mut assignment = Assignment::default();
        for (key, id) in self.vip_dictionary()? {
            let vip: balancer_ebpf::abi::VipEntry =
                self.vips.read(Self::at(epoch, self.settings.vips, id));
            if vip.route != 0 {
                assignment.vips.insert(key, id);
                assignment.routes.insert((0, id), vip.route);
            }
        }
        let sources: Vec<(IpAddr, u32)> = self.source_dictionary()?;
        for (address, id) in sources {
            let source: SourceEntry = self.sources.read(Self::at(epoch, self.settings.sources, id));
            assignment.sources.insert(address, id);
            assignment.classes.insert(address, source.class);
        }
        for (key, route) in self.class_route_dictionary()? {
            if self.is_route(epoch, route) {
                assignment.routes.insert(key, route);
            }
        }
        for id in ID_FIRST..self.settings.routes {
            let route = self.route(epoch, id);
            if route.kind == route_kind::TABLE && route.counters != 0 {
                let run = CounterRun {
                    first: route.counters,
                    count: route.table.backends,
                    backends: route.counted,
                };
                assignment.counters.insert(id, run);
            }
        }
        Ok(assignment)
    }

    /// Counter ids that flows or previous tables may still name. A counter that reads zero was
    /// never given to a connection; the flows are asked only when those that may have been are
    /// more than half of all, since a sweep looks at every flow.
    pub(crate) fn quarantine(
        &self,
        assignment: &Assignment,
    ) -> Result<(Quarantine, bool), KernelError> {
        let capacity = entries(map_names::COUNTERS, &self.counters)?;
        let epoch = self.epoch();
        let mut held = BTreeSet::new();
        for id in ID_FIRST..self.settings.routes {
            let route = self.route(epoch, id);
            if route.kind == route_kind::TABLE && route.previous.slots > 0 {
                held.extend(
                    (route.previous_counters..)
                        .take(route.previous.backends as usize)
                        .filter(|_| route.previous_counters != 0),
                );
            }
        }
        let owned: BTreeSet<u32> = assignment
            .counters
            .values()
            .flat_map(|run| (run.first..).take(run.count as usize))
            .collect();
        let mut touched = self.touched_counters()?;
        touched.retain(|id| !owned.contains(id));
        let sweep = touched.len() as u32 > capacity / 2;
        if sweep {
            let mut named = BTreeSet::new();
            self.for_each_flow(|_, row| {
                named.insert(row.flow.counter);
            })?;
            touched.retain(|id| named.contains(id));
        }
        held.extend(touched);
        held.retain(|id| !owned.contains(id));
        Ok((Quarantine { reals: BTreeSet::new(), counters: held }, sweep))
    }

    /// Counter ids that a connection was counted on.
    fn touched_counters(&self) -> Result<BTreeSet<u32>, KernelError> {
        let mut touched = BTreeSet::new();
        each_raw(map_names::COUNTERS, &self.counters, |key, value| {
            if value.iter().any(|b| *b != 0)
                && let Ok(id) = <[u8; 4]>::try_from(key)
            {
                touched.insert(u32::from_ne_bytes(id));
            }
        })?;
        Ok(touched)
    }
}
