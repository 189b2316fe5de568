//! The whole set, compared with the whole half.

use std::{collections::BTreeSet, net::IpAddr};

use balancer_ebpf::abi::{
    ID_FIRST, PortUse, REAL_FIRST, RouteEntry, SourceEntry, VipEntry, map_names, route_flags,
    route_kind, vip_flags,
};

use super::{
    super::{
        super::{KernelError, View, view::entries},
        dictionary::change,
    },
    Moment, Plan,
};
use crate::{
    compile::{SourceSpec, Tables},
    resolve::VipKey,
};

impl Plan {
    /// What leads to `tables`.
    pub(crate) fn whole(moment: &Moment<'_, '_>, tables: &Tables) -> Result<Self, KernelError> {
        let Moment { view, memory, .. } = *moment;
        check_capacity(view, tables)?;
        let old = &memory.assignment;
        let vips = change(
            "VIP",
            old.vips.iter().map(|(k, id)| (*k, *id)),
            tables.vips.iter().map(|(k, spec)| (*k, spec.id)),
        )?;
        let sources = change(
            "source",
            old.sources.iter().map(|(k, id)| (*k, *id)),
            tables.sources.iter().map(|(k, spec)| (*k, spec.id)),
        )?;
        let own = old.routes.iter().filter(|((class, _), _)| *class != 0);
        let class_routes = change(
            "class route",
            own.map(|(k, id)| (*k, *id)),
            tables.class_routes.iter().map(|(k, id)| (*k, *id)),
        )?;
        let mut plan = Self {
            vips,
            sources,
            class_routes,
            space: memory.space.clone(),
            ports: memory.ports.bits().clone(),
            ..Self::default()
        };
        plan.vips(moment, tables);
        plan.sources(moment, tables);
        plan.routes(moment, tables)?;
        for (id, spec) in &tables.reals {
            plan.real(view, *id, spec)?;
        }
        plan.give_back(memory);
        Ok(plan)
    }

    fn vips(&mut self, moment: &Moment<'_, '_>, tables: &Tables) {
        let view = moment.view;
        let mut entries = vec![VipEntry::default(); view.settings.vips as usize];
        let proxied = tables.routes.values().filter(|route| route.flags & route_flags::PROXY != 0);
        let proxied: BTreeSet<u32> = proxied.map(|route| route.owner.1).collect();
        for (key, spec) in &tables.vips {
            let mut flags = if spec.classes_agree { vip_flags::CLASSES_AGREE } else { 0 };
            if proxied.contains(&spec.id) || moment.is_proxied(key, spec.id) {
                flags |= vip_flags::PROXIED;
            }
            entries[spec.id as usize] = VipEntry { route: spec.route, flags };
            self.ports.add(key.addr.port(), PortUse::Vip);
        }
        self.vip_entries =
            (0..).zip(entries).filter(|(id, entry)| moment.vip(*id) != *entry).collect();
    }

    fn sources(&mut self, moment: &Moment<'_, '_>, tables: &Tables) {
        let Moment { view, epoch, .. } = *moment;
        let current = |id: u32| -> SourceEntry {
            view.sources.read(View::at(epoch, view.settings.sources, id))
        };
        let mut entries = vec![SourceEntry::default(); view.settings.sources as usize];
        for (address, spec) in &tables.sources {
            let entry = moment.source(address, spec);
            if current(spec.id) != entry {
                self.classes.push((*address, spec.class));
            }
            entries[spec.id as usize] = entry;
        }
        // One of class 0 that is new has an element like that of none.
        let new = self.sources.added.iter();
        self.classes.extend(
            new.filter_map(|(address, _)| Some((*address, tables.sources.get(address)?.class))),
        );
        self.source_entries =
            (0..).zip(entries).filter(|(id, entry)| current(*id) != *entry).collect();
    }

    fn routes(&mut self, moment: &Moment<'_, '_>, tables: &Tables) -> Result<(), KernelError> {
        let Moment { view, epoch, .. } = *moment;
        let mut entries = vec![RouteEntry::default(); view.settings.routes as usize];
        for id in ID_FIRST..view.settings.routes {
            // Somebody may hold the id from the dictionary until a grace period has passed.
            if view.route(epoch, id).kind == route_kind::INHERIT {
                entries[id as usize].kind = route_kind::INHERIT;
            }
        }
        for (key, id) in &self.class_routes.removed {
            if tables.routes.contains_key(id) {
                return Err(KernelError::Conflict(format!(
                    "route {id} is given back by class route {key:?} and given out again at once"
                )));
            }
            entries[*id as usize].kind = route_kind::INHERIT;
        }
        for (key, id) in &self.class_routes.added {
            match view.route(epoch, *id).kind {
                route_kind::INHERIT => {}
                route_kind::NONE => self.inherit.push(*id),
                _ => {
                    return Err(KernelError::Conflict(format!(
                        "class route {key:?} wants route {id}, which is in use"
                    )));
                }
            }
        }
        for (id, spec) in &tables.routes {
            entries[*id as usize] = self.route(moment, *id, spec)?;
        }
        for (id, entry) in (0..).zip(entries) {
            self.route_entry(&view.route(epoch, id), id, entry);
        }
        Ok(())
    }
}

impl Moment<'_, '_> {
    /// Whether the proxy may have connections to a VIP: the flag stays while the VIP does.
    fn is_proxied(&self, key: &VipKey, id: u32) -> bool {
        self.memory.assignment.vips.get(key) == Some(&id)
            && self.vip(id).flags & vip_flags::PROXIED != 0
    }

    /// The element of a VIP that is live.
    pub(super) fn vip(&self, id: u32) -> VipEntry {
        self.view.vips.read(View::at(self.epoch, self.view.settings.vips, id))
    }

    /// The element of a source. What nobody asked for stays.
    pub(super) fn source(&self, address: &IpAddr, spec: &SourceSpec) -> SourceEntry {
        let stays = self.memory.published && self.options.interfaces_as_before;
        let known = self.memory.assignment.sources.get(address).filter(|_| stays);
        let ifindex = match (self.ifindex.get(address), known) {
            (Some(ifindex), _) => *ifindex,
            (None, Some(id)) => {
                let at = View::at(self.epoch, self.view.settings.sources, *id);
                self.view.sources.read::<SourceEntry>(at).ifindex
            }
            (None, None) => 0,
        };
        SourceEntry { class: spec.class, ifindex }
    }
}

/// Every id must have an element. Checked before anything is written.
fn check_capacity(view: &View, tables: &Tables) -> Result<(), KernelError> {
    let full = |map, highest: Option<u32>, capacity, reserved, setting| {
        highest.map_or(Ok(()), |id| fits(map, id, capacity, reserved, setting))
    };
    let settings = &view.settings;
    let vips = tables.vips.values().map(|v| v.id).max();
    full(map_names::VIPS, vips, settings.vips, ID_FIRST, "limits.services")?;
    let sources = tables.sources.values().map(|s| s.id).max();
    full(map_names::SOURCES, sources, settings.sources, ID_FIRST, "limits.sources")?;
    let routes = tables.routes.keys().next_back().copied();
    full(map_names::ROUTES, routes, settings.routes, ID_FIRST, "limits.routes")?;
    let reals = tables.reals.keys().next_back().copied();
    full(map_names::REALS, reals, view.real_capacity() as u32, REAL_FIRST, "limits.reals")?;
    let counters = tables
        .routes
        .values()
        .filter_map(|r| {
            let run = r.counters;
            (run.first != 0 && run.count > 0).then(|| run.first.saturating_add(run.count - 1))
        })
        .max();
    let capacity = entries(map_names::COUNTERS, &view.counters)?;
    full(map_names::COUNTERS, counters, capacity, ID_FIRST, "limits.counters")?;
    for (key, spec) in &tables.vips {
        if !tables.routes.contains_key(&spec.route) {
            return Err(KernelError::Conflict(format!(
                "VIP {} names route {}, which is not among the routes",
                key, spec.route
            )));
        }
    }
    for (key, route) in &tables.class_routes {
        if !tables.routes.contains_key(route) {
            return Err(KernelError::Conflict(format!(
                "class route {key:?} names route {route}, which is not among the routes"
            )));
        }
    }
    if let Some(id) = tables.reals.keys().next().filter(|id| **id < REAL_FIRST) {
        return Err(KernelError::Conflict(format!("real id {id} is reserved")));
    }
    Ok(())
}

/// The id must have an element.
pub(super) fn fits(
    map: &'static str,
    id: u32,
    capacity: u32,
    reserved: u32,
    setting: &'static str,
) -> Result<(), KernelError> {
    if id < capacity {
        return Ok(());
    }
    Err(KernelError::Full {
        map,
        needed: u64::from(id) + 1 - u64::from(reserved),
        capacity: u64::from(capacity - reserved),
        setting,
    })
}
