//! Policies as both the maps and the model have them.

use std::net::SocketAddr;

use balancer_ebpf::{
    abi::{REAL_BLACKHOLE, REAL_NONE, RunWord, Table},
    abi::{RouteEntry, TargetWord, pick, real_flags, route_kind},
};

use super::{Model, Pick, Real, Route, Slot, Vip};
use crate::world::{HALF, LOOPBACK, World};

/// Programs with what they are told, and the model with the same.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) model: Model,
    /// VIPs in the order of their ids, from 1 on.
    pub(crate) vips: Vec<Vip>,
}

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn slot(target: u32) -> Slot {
    match target {
        REAL_NONE => Slot::Nothing,
        REAL_BLACKHOLE => Slot::Blackhole,
        id => Slot::Real(id),
    }
}

impl Scene {
    /// Nothing is told yet. `None` where the privileges are missing and may be.
    pub(crate) fn new(flows: u32) -> Option<Self> {
        let model = Model { keeps: true, ..Model::default() };
        Some(Self { world: World::with_flows(flows)?, model, vips: Vec::new() })
    }

    /// A real; its id may have been another's.
    pub(crate) fn real(&mut self, id: u32, at: &str) {
        let generation = self.model.reals.get(&id).map_or(1, |real| real.generation + 1);
        self.world.real(id, at, generation);
        let real = Real { end: end(at), generation, gone: false };
        self.model.real_ports.push(real.end.port());
        self.model.reals.insert(id, real);
    }

    /// Takes a real out of the inventory, or back in.
    pub(crate) fn gone(&mut self, id: u32, gone: bool) {
        self.world.change_real(id, |real| real.flags = if gone { real_flags::GONE } else { 0 });
        self.model.reals.get_mut(&id).expect("a real of this scene").gone = gone;
    }

    /// Whether gone reals keep their connections.
    pub(crate) fn keeps(&mut self, keeps: bool) {
        self.world.settings(if keeps { u64::MAX } else { 0 });
        self.model.keeps = keeps;
    }

    /// A VIP without a route yet, of UDP with `/udp` at its end.
    pub(crate) fn vip(&mut self, at: &str) -> Vip {
        let vip = match at.strip_suffix("/udp") {
            Some(at) => Vip { end: end(at), is_udp: true },
            None => Vip { end: end(at), is_udp: false },
        };
        let id = self.world.vip(at);
        self.vips.push(vip);
        assert_eq!(id as usize, self.vips.len(), "VIPs are numbered in turn");
        self.model.vip_ports.push(vip.end.port());
        self.model.addresses.push(vip.end.ip());
        vip
    }

    fn id(&self, vip: Vip) -> u32 {
        self.vips.iter().position(|v| *v == vip).expect("a VIP of this scene") as u32 + 1
    }

    fn table(&mut self, targets: &[u32]) -> Table {
        let words: Vec<_> = targets.iter().map(|&real| TargetWord { real, backend: 0 }).collect();
        let run = RunWord { first: 0, slots: targets.len() as u32 };
        let slots: Vec<u16> = (0..targets.len() as u16).collect();
        self.world.table(&[run], &words, &slots)
    }

    fn publish(&mut self, vip: Vip, entry: &RouteEntry, route: Option<Route>) {
        let id = self.id(vip);
        assert!(id < HALF, "the maps have room for {HALF} VIPs");
        for half in 0..2 {
            self.world.route(half, id, entry);
            self.world.vip_entry(half, id, if route.is_some() { id } else { 0 }, 0);
        }
        match route {
            Some(route) => self.model.routes.insert(vip, route),
            None => self.model.routes.remove(&vip),
        };
    }

    /// Connections go to these targets, a slot each: ids of reals, or of what is none.
    pub(crate) fn route(&mut self, vip: Vip, kernel_pick: u8, targets: &[u32]) {
        self.route_after(vip, kernel_pick, targets, &[]);
    }

    /// The same after a change: what has no entry may still be found by the table before.
    pub(crate) fn route_after(
        &mut self,
        vip: Vip,
        kernel_pick: u8,
        targets: &[u32],
        before: &[u32],
    ) {
        let counter = self.id(vip);
        let table = self.table(targets);
        let previous = if before.is_empty() { Table::default() } else { self.table(before) };
        let entry = RouteEntry {
            kind: route_kind::TABLE,
            pick: kernel_pick,
            choices: 2,
            counters: counter,
            table,
            previous,
            previous_counters: counter,
            previous_until_ns: u64::MAX,
            ..Default::default()
        };
        let route = Route::Table {
            pick: if kernel_pick == pick::HASH { Pick::Hash } else { Pick::Any },
            slots: targets.iter().copied().map(slot).collect(),
            previous: before.iter().copied().map(slot).collect(),
            counter,
        };
        self.publish(vip, &entry, Some(route));
    }

    /// Connections are refused.
    pub(crate) fn deny(&mut self, vip: Vip) {
        let entry = RouteEntry { kind: route_kind::DENY, ..Default::default() };
        self.publish(vip, &entry, Some(Route::Denied));
    }

    /// The VIP is gone from the policies.
    pub(crate) fn withdraw(&mut self, vip: Vip) {
        self.publish(vip, &RouteEntry::default(), None);
    }

    /// Has replies of all reals looked at where they come in, as after the first flow that the stack
    /// does not simply route.
    pub(crate) fn answer_inward(&mut self) {
        for real in self.model.reals.values() {
            self.world.answer_inward(real.end.port());
            self.model.inward_ports.push(real.end.port());
        }
    }

    /// Nobody says anything by UDP for so long.
    pub(crate) fn pass(&mut self, seconds: u32) {
        self.world.age_datagrams(seconds);
        self.model.seconds += seconds;
    }

    /// A workload that is behind another interface than these tests' packets come from.
    pub(crate) fn elsewhere(&mut self, address: &str, id: u32) {
        for half in 0..2 {
            self.world.source(half, address, id, 0, LOOPBACK + 1);
        }
        self.model.elsewhere.push(address.parse().expect("an address"));
    }
}
