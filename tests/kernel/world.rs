//! Small worlds of VIPs, sources and reals, and what the maps say of them in natural keys.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use balancer_ebpf::abi::{REAL_BLACKHOLE, route_kind};
use balancer_user::{
    compile::{self, Assignment, Limits, Tables},
    kernel::{Datapath, KernelError, View},
    policy::{LoadBalancer, Tags},
    resolve::{
        Backend, BackendState, Class, Decision, Destination, Hashing, Resolved, Route, Source, Vip,
        VipKey, VipOrigin,
    },
};

/// A weight and the reals that share it.
type Weighted = (u32, Vec<SocketAddr>);

/// A service: where it is dialled, and its weighted backends.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) vip: SocketAddr,
    pub(crate) backends: Vec<Weighted>,
    pub(crate) load_balancer: LoadBalancer,
    /// What one source gets instead.
    pub(crate) own: Option<(IpAddr, Vec<Weighted>)>,
}

pub(crate) fn vip(n: u16) -> SocketAddr {
    SocketAddr::from(([240, 0, (n >> 8) as u8, n as u8], 80))
}

pub(crate) fn real(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 8080))
}

/// Maglev over these reals.
pub(crate) fn service(n: u16, reals: &[u16]) -> Service {
    let reals = reals.iter().map(|n| real(*n)).collect();
    Service {
        vip: vip(n),
        backends: vec![(1, reals)],
        load_balancer: LoadBalancer::Maglev,
        own: None,
    }
}

fn route(backends: &[(u32, Vec<SocketAddr>)], load_balancer: LoadBalancer) -> Route {
    Route {
        policy: None,
        decision: Decision::Forward,
        load_balancer,
        hashing: Hashing::default(),
        http: None,
        backends: backends
            .iter()
            .enumerate()
            .map(|(i, (weight, reals))| {
                let mut reals = reals.clone();
                reals.sort_unstable();
                Backend {
                    destination: Destination::tags("default", &format!("backend-{i}")),
                    tags: Tags::new(),
                    weight: *weight,
                    state: if reals.is_empty() { BackendState::Empty } else { BackendState::Ok },
                    reals,
                }
            })
            .collect(),
    }
}

/// The services as resolution would give them; `more` are reals of the inventory that no
/// service names.
pub(crate) fn resolved(services: &[Service], more: &[SocketAddr]) -> Resolved {
    let mut services = services.to_vec();
    services.sort_by_key(|s| s.vip);
    let mut resolved = Resolved { classes: vec![Class::default()], ..Resolved::default() };
    let mut own: Vec<IpAddr> = services.iter().filter_map(|s| Some(s.own.as_ref()?.0)).collect();
    own.sort_unstable();
    own.dedup();
    for address in &own {
        let class = resolved.classes.len();
        resolved.classes.push(Class { sources: vec![*address] });
        let dataplanes = vec![("default".into(), address.to_string())];
        resolved.sources.push(Source { address: *address, dataplanes, class });
    }
    let add = |resolved: &mut Resolved, route: Route| {
        resolved.inventory.extend(route.backends.iter().flat_map(|b| b.reals.iter().copied()));
        resolved.routes.push(route);
        resolved.routes.len() - 1
    };
    for service in &services {
        let default = add(&mut resolved, route(&service.backends, service.load_balancer));
        let mut class_routes = BTreeMap::new();
        if let Some((address, backends)) = &service.own {
            let class = 1 + own.binary_search(address).expect("own address");
            class_routes.insert(class, add(&mut resolved, route(backends, service.load_balancer)));
        }
        resolved.vips.push(Vip {
            key: VipKey::tcp(service.vip),
            destination: Destination::tags("default", &service.vip.to_string()),
            also: None,
            origin: VipOrigin::Outbound,
            route: default,
            class_routes,
        });
    }
    resolved.inventory.extend_from_slice(more);
    resolved.inventory.sort_unstable();
    resolved.inventory.dedup();
    resolved
}

/// The tables that the datapath should get.
pub(crate) fn compiled(datapath: &mut Datapath, resolved: &Resolved) -> Tables {
    // The datapath's own limits are its tests' business.
    let limits = Limits {
        services: 1 << 16,
        sources: 1 << 16,
        routes: 1 << 17,
        reals: 1 << 20,
        counters: 1 << 20,
        arena_slots: 1 << 30,
        ..Limits::default()
    };
    let assignment = datapath.assignment().expect("assignment");
    compile::compile(resolved, assignment, &limits).expect("compile")
}

/// (source or everybody, VIP) → the real of each slot; `None`: refused.
pub(crate) type Described = BTreeMap<(Option<IpAddr>, SocketAddr), Vec<Option<SocketAddr>>>;

/// What packets of the current epoch meet.
pub(crate) fn described(view: &View) -> Result<Described, KernelError> {
    loop {
        let epoch = view.epoch();
        let described = described_once(view)?;
        if view.epoch() == epoch {
            return Ok(described);
        }
    }
}

fn described_once(view: &View) -> Result<Described, KernelError> {
    let reals: BTreeMap<u32, SocketAddr> =
        view.reals()?.into_iter().map(|r| (r.id, r.addr)).collect();
    let routes: BTreeMap<u32, _> = view.routes()?.into_iter().map(|r| (r.id, r.entry)).collect();
    let own: BTreeMap<(u32, u32), u32> =
        view.class_routes()?.into_iter().map(|r| ((r.class, r.vip), r.route)).collect();
    let sources = view.sources()?;
    let mut described = Described::new();
    for vip in view.vips()? {
        let mut row = |source: Option<IpAddr>, route: u32| {
            let entry = routes.get(&route).copied().unwrap_or_default();
            let slots = if entry.kind == route_kind::TABLE {
                let table = view.table(&entry.table)?;
                // Words may be another table's by now; then the epoch has moved on too.
                let nowhere = SocketAddr::from(([0; 4], 0));
                let real = |slot: &u16| match table.targets.get(usize::from(*slot)) {
                    Some(target) if target.real == REAL_BLACKHOLE => None,
                    Some(target) => Some(reals.get(&target.real).copied().unwrap_or(nowhere)),
                    None => Some(nowhere),
                };
                table.slots.iter().map(real).collect()
            } else {
                Vec::new()
            };
            described.insert((source, vip.key.addr), slots);
            Ok::<_, KernelError>(())
        };
        row(None, vip.route)?;
        for source in sources.iter().filter(|s| s.class != 0) {
            if let Some(route) = own.get(&(source.class, vip.id)) {
                row(Some(source.address), *route)?;
            }
        }
    }
    Ok(described)
}

/// What the maps should say, whatever the ids.
pub(crate) fn expected(resolved: &Resolved) -> Described {
    let tables =
        compile::compile(resolved, &Assignment::default(), &Limits::default()).expect("compile");
    let mut described = Described::new();
    let slots = |route: u32| {
        let table = tables.routes[&route].table.as_ref().expect("table");
        let real = |slot: &u16| match table.targets[usize::from(*slot)].real {
            REAL_BLACKHOLE => None,
            id => Some(tables.reals[&id].addr),
        };
        table.slots.iter().map(real).collect::<Vec<_>>()
    };
    for (key, spec) in &tables.vips {
        described.insert((None, key.addr), slots(spec.route));
        for (address, source) in tables.sources.iter().filter(|(_, s)| s.class != 0) {
            if let Some(route) = tables.class_routes.get(&(source.class, spec.id)) {
                described.insert((Some(*address), key.addr), slots(*route));
            }
        }
    }
    described
}
