//! What a connection should meet, from the pure rooms of the library alone: the tables are
//! compiled here once more and indexed by the shared hash, and nothing is read from the kernel.

use std::{net::SocketAddr, path::Path};

use balancer_ebpf::{
    abi::{FlowKey4, FlowKey6, TCP, direction},
    hash,
};
use balancer_user::{
    compile::{self, Assignment, Limits},
    policy::{self, ReadOptions},
    resolve::{self, GATEWAY_CONTROLLER, Names, NoRoute, ResolveSettings, VipAssignments, VipKey},
};

use crate::bed::name_of;

/// The table that a class-0 or only class meets at one VIP: the name of the real in each slot.
pub(crate) struct ExpectedTable {
    slots: Vec<&'static str>,
}

impl ExpectedTable {
    /// Compiles the policies in `path` and takes the route of `source` at `vip`.
    pub(crate) fn compile(path: &Path, source: SocketAddr, vip: SocketAddr) -> Self {
        let texts = policy::gather(&[path.to_path_buf()]).expect("readable policies");
        let reading = policy::read(texts, &ReadOptions::default());
        assert!(reading.report.valid(), "{:?}", reading.report);
        let settings = ResolveSettings {
            vips4: ("240.0.0.0".parse().expect("an address"), 8),
            vips6: ("fd62:616c::".parse().expect("an address"), 64),
            zone: None,
            no_route: NoRoute::Direct,
            gateway_controller: GATEWAY_CONTROLLER.to_owned(),
            allow_plain: false,
            protocols: Vec::new(),
            names: Names::default(),
            assigned: VipAssignments::new(),
        };
        let resolved = resolve::resolve(&reading.set, &settings);
        let tables = compile::compile(&resolved, &Assignment::default(), &Limits::default())
            .expect("room for the tables");
        let spec = &tables.vips[&VipKey::tcp(vip)];
        let class = tables.sources.get(&source.ip()).map_or(0, |source| source.class);
        let route = tables.class_routes.get(&(class, spec.id)).unwrap_or(&spec.route);
        let table = tables.routes[route].table.as_ref().expect("a table");
        let name = |ordinal: &u16| {
            let real = table.targets[usize::from(*ordinal)].real;
            name_of(tables.reals[&real].addr.ip())
        };
        Self { slots: table.slots.iter().map(name).collect() }
    }

    /// The names in the order of their slots.
    pub(crate) fn slots(&self) -> &[&'static str] {
        &self.slots
    }

    /// Where the flow hash sends a connection.
    pub(crate) fn by_hash(&self, from: SocketAddr, to: SocketAddr) -> &'static str {
        let (sport, dport) = (from.port().to_be_bytes(), to.port().to_be_bytes());
        let hash = match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => hash::flow4(
                &FlowKey4 {
                    src: from.ip().octets(),
                    dst: to.ip().octets(),
                    sport,
                    dport,
                    proto: TCP,
                    direction: direction::FORWARD,
                    ..FlowKey4::default()
                },
                false,
            ),
            (SocketAddr::V6(from), SocketAddr::V6(to)) => hash::flow6(
                &FlowKey6 {
                    src: from.ip().octets(),
                    dst: to.ip().octets(),
                    sport,
                    dport,
                    proto: TCP,
                    direction: direction::FORWARD,
                    ..FlowKey6::default()
                },
                false,
            ),
            _ => panic!("{from} and {to} are of two families"),
        };
        let slots = u32::try_from(self.slots.len()).expect("a table's size");
        self.slots[hash::slot(hash, slots) as usize]
    }
}
