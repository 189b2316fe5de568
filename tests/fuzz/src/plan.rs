//! Any two sets, one in place of the other: both are compiled, and what would change is told.

use std::fmt::Write as _;

use arbitrary::{Result, Unstructured};
use balancer_user::{
    compile::{self, Assignment, Limits, Tables},
    plan::{self, LiveFlow, Side},
    policy::{self, ReadOptions, SourceText},
    resolve::{self, Resolved, VipAssignments},
    settings::Settings,
};

/// Makes two sets of `data`.
pub fn plan(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(world) = world(&mut data) else { return };
    let Ok(next) = next(&world, &mut data) else { return };
    let Some(before) = compiled(&world, &Assignment::default()) else { return };
    let assignment = Assignment::default().after(&before.1);
    let Some(after) = compiled(&next, &assignment) else { return };
    assert_eq!(compiled(&next, &assignment).as_ref(), Some(&after), "one set has one outcome");

    let side = |(resolved, tables)| Side { resolved, tables };
    let (old, new) = (side((&before.0, &before.1)), side((&after.0, &after.1)));
    let no_flows = None::<std::iter::Empty<LiveFlow>>;
    let same = plan::compare(old, old, no_flows.clone());
    assert!(same.none() && same.routes.is_empty(), "a set in its own place changes nothing");
    let changes = plan::compare(old, new, no_flows);
    for route in &changes.routes {
        for (side, slots) in [
            (route.backends.iter().map(|b| b.share.before).sum::<f64>(), route.slots.before),
            (route.backends.iter().map(|b| b.share.after).sum::<f64>(), route.slots.after),
        ] {
            let whole = slots.is_none() || (side - 1.0).abs() < 1e-6 || side.abs() < 1e-6;
            assert!(side.is_finite() && whole, "shares sum to {side}: {route:?}");
        }
    }
    let all = changes.routes.len() + changes.routes_unchanged;
    assert!(all >= new.tables.routes.len().min(1), "{all} routes");
}

/// Resolves and compiles; `None`: the set is not to be loaded, or larger than the limits.
fn compiled(world: &World, assignment: &Assignment) -> Option<(Resolved, Tables)> {
    let text = SourceText { name: "a".into(), text: world.text().into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    if !reading.report.valid() {
        return None;
    }
    let settings = Settings::default().resolve_settings(VipAssignments::default());
    let resolved = resolve::resolve(&reading.set, &settings);
    if resolved.diagnostics.iter().any(|(_, finding)| finding.is_error()) {
        return None;
    }
    let limits = Limits { arena_slots: 1 << 20, ..Limits::default() };
    let tables = compile::compile(&resolved, assignment, &limits).ok()?;
    Some((resolved, tables))
}

/// A set as its parts, so that the next one can differ in some.
#[derive(Clone, Default)]
struct World {
    locality: bool,
    dataplanes: Vec<Dataplane>,
    routes: Vec<Route>,
}

#[derive(Clone)]
struct Dataplane {
    address: u8,
    service: u8,
    port: u16,
    version: u8,
    ready: bool,
    v6: bool,
}

#[derive(Clone)]
struct Route {
    mesh_tcp: bool,
    source: Option<u8>,
    destination: Option<u8>,
    balancer: u8,
    split: Vec<(u32, u8, Option<u8>)>,
}

fn service(number: u8) -> char {
    char::from(b'a' + number % 4)
}

fn dataplane(data: &mut Unstructured<'_>) -> Result<Dataplane> {
    Ok(Dataplane {
        address: data.arbitrary()?,
        service: data.arbitrary()?,
        port: *data.choose(&[80, 443, 6379, 1, 65_535])?,
        version: data.int_in_range(1..=3)?,
        ready: data.ratio(3, 4)?,
        v6: data.ratio(1, 4)?,
    })
}

fn route(data: &mut Unstructured<'_>) -> Result<Route> {
    let mut split = Vec::new();
    for _ in 0..data.int_in_range(1..=4)? {
        let weight = match data.int_in_range(0..=3)? {
            0 => 0,
            1 => data.arbitrary()?,
            _ => data.int_in_range(1..=100)?,
        };
        let version = if data.arbitrary()? { Some(data.int_in_range(1..=3)?) } else { None };
        split.push((weight, data.arbitrary()?, version));
    }
    Ok(Route {
        mesh_tcp: data.ratio(1, 3)?,
        source: if data.arbitrary()? { Some(data.arbitrary()?) } else { None },
        destination: if data.ratio(3, 4)? { Some(data.arbitrary()?) } else { None },
        balancer: data.arbitrary()?,
        split,
    })
}

fn world(data: &mut Unstructured<'_>) -> Result<World> {
    let mut world = World { locality: data.arbitrary()?, ..World::default() };
    for _ in 0..data.int_in_range(0..=12)? {
        world.dataplanes.push(dataplane(data)?);
    }
    for _ in 0..data.int_in_range(0..=5)? {
        world.routes.push(route(data)?);
    }
    Ok(world)
}

/// A set that is another one with some changes.
fn next(world: &World, data: &mut Unstructured<'_>) -> Result<World> {
    let mut next = world.clone();
    for _ in 0..data.int_in_range(0..=4)? {
        let at: usize = data.arbitrary()?;
        let (dataplanes, routes) = (next.dataplanes.len().max(1), next.routes.len().max(1));
        match data.int_in_range(0..=6)? {
            0 => next.dataplanes.push(dataplane(data)?),
            1 if !next.dataplanes.is_empty() => drop(next.dataplanes.remove(at % dataplanes)),
            2 => next.routes.push(route(data)?),
            3 if !next.routes.is_empty() => drop(next.routes.remove(at % routes)),
            4 if !next.routes.is_empty() => next.routes[at % routes] = route(data)?,
            5 if !next.dataplanes.is_empty() => next.dataplanes[at % dataplanes] = dataplane(data)?,
            _ => next.locality = !next.locality,
        }
    }
    Ok(next)
}

impl World {
    fn text(&self) -> String {
        let locality = self.locality;
        let mut text = format!(
            "{{type: Mesh, name: m, routing: {{localityAwareLoadBalancing: {locality}}}}}\n"
        );
        for (number, dataplane) in self.dataplanes.iter().enumerate() {
            let Dataplane { address, service: of, port, version, ready, v6 } = dataplane;
            let of = service(*of);
            let address =
                if *v6 { format!("'fd00::{address:x}'") } else { format!("10.0.0.{address}") };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "---\n{{type: Dataplane, mesh: m, name: d{number}, networking: {{address: {address}, \
                 inbound: [{{port: {port}, health: {{ready: {ready}}}, tags: {{kuma.io/service: {of}, \
                 version: v{version}, kuma.io/zone: z{version}}}}}]}}}}\n"
            );
        }
        for (number, route) in self.routes.iter().enumerate() {
            let shown = if route.mesh_tcp { route.mesh_tcp_text() } else { route.traffic_text() };
            let _ = write!(text, "---\n{{name: r{number}, mesh: m, {shown}}}\n");
        }
        text
    }
}

impl Route {
    fn traffic_text(&self) -> String {
        let star = |of: Option<u8>| of.map_or('*', service);
        let balancer = [
            "roundRobin: {}",
            "random: {}",
            "maglev: {}",
            "leastRequest: {choiceCount: 3}",
            "ringHash: {hashFunction: XX_HASH, maxRingSize: 65536}",
            "ringHash: {hashFunction: MURMUR_HASH_2, minRingSize: 3, maxRingSize: 7}",
        ][usize::from(self.balancer % 6)];
        let mut split = String::new();
        for (weight, of, version) in &self.split {
            let version = version.map_or(String::new(), |version| format!(", version: v{version}"));
            let of = service(*of);
            let _ = write!(
                split,
                "{{weight: {weight}, destination: {{kuma.io/service: {of}{version}}}}},"
            );
        }
        let (from, to) = (star(self.source), star(self.destination));
        format!(
            "type: TrafficRoute, sources: [{{match: {{kuma.io/service: '{from}'}}}}], destinations: \
             [{{match: {{kuma.io/service: '{to}'}}}}], conf: {{loadBalancer: {{{balancer}}}, split: [{split}]}}"
        )
    }

    fn mesh_tcp_text(&self) -> String {
        let target = match self.source {
            Some(of) => format!("{{kind: MeshService, name: {}}}", service(of)),
            None => "{kind: Mesh}".to_owned(),
        };
        let mut backends = String::new();
        for (weight, of, version) in &self.split {
            let of = service(*of);
            let _ = match version {
                Some(version) => write!(
                    backends,
                    "{{kind: MeshServiceSubset, name: {of}, weight: {weight}, tags: {{version: v{version}}}}},"
                ),
                None => write!(backends, "{{kind: MeshService, name: {of}, weight: {weight}}},"),
            };
        }
        let to = service(self.destination.unwrap_or_default());
        format!(
            "type: MeshTCPRoute, spec: {{targetRef: {target}, to: [{{targetRef: {{kind: MeshService, \
             name: {to}}}, rules: [{{default: {{backendRefs: [{backends}]}}}}]}}]}}"
        )
    }
}
