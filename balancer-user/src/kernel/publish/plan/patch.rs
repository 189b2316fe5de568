//! A small change of what this process published last.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use balancer_ebpf::abi::{
    ID_FIRST, REAL_FIRST, SourceEntry, VipEntry, map_names, route_flags, vip_flags,
};

use super::{
    super::{
        super::{KernelError, View, view::entries},
        dictionary::{Change, given_back_only_now},
    },
    Moment, Plan,
    whole::fits,
};
use crate::compile::{Patch, Tables};

impl Plan {
    /// What leads to `tables`, which differ by `patch` from those that are live.
    pub(crate) fn patch(
        moment: &Moment<'_, '_>,
        tables: &Tables,
        patch: &Patch,
    ) -> Result<Self, KernelError> {
        let Moment { view, memory, epoch, now_ns, .. } = *moment;
        let mut plan = Self {
            space: memory.space.clone(),
            ports: memory.ports.bits().clone(),
            ..Self::default()
        };
        plan.patch_sources(moment, tables, patch)?;
        // Tables before a change whose time is over go with this one, as they do with a whole.
        let over = |id: &&u32| view.route(epoch, **id).previous_until_ns <= now_ns;
        let routes: BTreeSet<u32> =
            patch.routes.iter().chain(memory.previous.iter().filter(over)).copied().collect();
        let counters = entries(map_names::COUNTERS, &view.counters)?;
        let mut vips = BTreeMap::new();
        for id in routes {
            let Some(spec) = tables.routes.get(&id) else {
                return Err(KernelError::Conflict(format!("there is no route {id} to change")));
            };
            let last = spec.counters.first.saturating_add(spec.counters.count.max(1) - 1);
            fits(map_names::ROUTES, id, view.settings.routes, ID_FIRST, "limits.routes")?;
            fits(map_names::COUNTERS, last, counters, ID_FIRST, "limits.counters")?;
            let entry = plan.route(moment, id, spec)?;
            plan.route_entry(&view.route(epoch, id), id, entry);
            let (vip, live) = (spec.owner.1, moment.vip(spec.owner.1));
            if spec.flags & route_flags::PROXY != 0 && live.flags & vip_flags::PROXIED == 0 {
                let flags = live.flags | vip_flags::PROXIED;
                vips.insert(vip, VipEntry { flags, ..live });
            }
        }
        plan.vip_entries = vips.into_iter().collect();
        for id in &patch.reals_added {
            let capacity = view.real_capacity() as u32;
            fits(map_names::REALS, *id, capacity, REAL_FIRST, "limits.reals")?;
            if let Some(spec) = tables.reals.get(id) {
                plan.real(view, *id, spec)?;
            }
        }
        plan.give_back(memory);
        Ok(plan)
    }

    fn patch_sources(
        &mut self,
        moment: &Moment<'_, '_>,
        tables: &Tables,
        patch: &Patch,
    ) -> Result<(), KernelError> {
        let Moment { view, memory, epoch, .. } = *moment;
        let mut entries = Vec::new();
        let had = |address: &IpAddr| memory.assignment.sources.get(address).copied();
        for (address, id) in &patch.sources_removed {
            if had(address) != Some(*id) {
                return Err(KernelError::Conflict(format!("source {address} has not id {id}")));
            }
            self.sources.removed.push((*address, *id));
            entries.push((*id, SourceEntry::default()));
        }
        for address in &patch.sources_added {
            let Some(spec) = tables.sources.get(address).filter(|_| had(address).is_none()) else {
                return Err(KernelError::Conflict(format!("source {address} is not new")));
            };
            fits(map_names::SOURCES, spec.id, view.settings.sources, ID_FIRST, "limits.sources")?;
            self.sources.added.push((*address, spec.id));
            self.classes.push((*address, spec.class));
            entries.push((spec.id, moment.source(address, spec)));
        }
        let Change { added, removed } = &self.sources;
        given_back_only_now("source", added, removed)?;
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries.retain(|(id, entry)| {
            let at = View::at(epoch, view.settings.sources, *id);
            view.sources.read::<SourceEntry>(at) != *entry
        });
        self.source_entries = entries;
        Ok(())
    }
}
