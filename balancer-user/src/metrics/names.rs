//! Names for what the counters of a set count: source classes, destinations, backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    compile::Tables,
    policy::{Dataplane, PolicySet, SERVICE_TAG},
    resolve::{Resolved, tags_text},
};

use super::ledger::{Name, Run};

/// Everybody whose address is no source, and sources that are routed like them.
pub(crate) const EVERYBODY: &str = "everybody";

/// Services that a class's name lists before it counts the rest.
const LISTED: usize = 3;

/// The counters of every route of a set, and whom they count for.
pub(crate) fn runs<'a>(
    set: &PolicySet,
    resolved: &'a Resolved,
    tables: &'a Tables,
) -> impl Iterator<Item = Run<impl FnOnce() -> Vec<Name> + use<'a>>> + use<'a> {
    let classes = classes(set, resolved, tables);
    let vips: BTreeMap<u32, usize> =
        tables.vips.values().map(|spec| (spec.id, spec.resolved)).collect();
    tables.routes.iter().filter_map(move |(&route, spec)| {
        let (class, vip) = spec.owner;
        let vip = resolved.vips.get(*vips.get(&vip)?)?;
        let table = spec.table.as_ref()?;
        let backends = &resolved.routes.get(spec.resolved)?.backends;
        let source_class = classes.get(&class).map_or_else(|| EVERYBODY.into(), Arc::clone);
        // Compared within this process only.
        let mut fingerprint = Xxh3Default::new();
        (vip.key, &vip.destination, &source_class).hash(&mut fingerprint);
        let names = move || {
            let mesh: Arc<str> = vip.destination.mesh().into();
            let service: Arc<str> = vip.destination.to_string().into();
            let vip: Arc<str> = vip.key.to_string().into();
            let backends = table.backends.iter().filter_map(|&at| backends.get(at));
            backends
                .map(|backend| Name {
                    mesh: Arc::clone(&mesh),
                    service: Arc::clone(&service),
                    vip: Arc::clone(&vip),
                    source_class: Arc::clone(&source_class),
                    backend: backend.destination.to_string(),
                    tags: tags_text(&backend.tags),
                })
                .collect()
        };
        Some(Run { route, run: spec.counters, fingerprint: fingerprint.finish(), names })
    })
}

/// Class id → its name: the services of its workloads, `MESH/SERVICE`. Pods come and go, and
/// services stay. Where two classes are of the same services, both add their first Dataplane.
fn classes(set: &PolicySet, resolved: &Resolved, tables: &Tables) -> BTreeMap<u32, Arc<str>> {
    #[derive(Default)]
    struct Class<'a> {
        services: BTreeSet<(&'a str, &'a str)>,
        dataplanes: BTreeSet<(&'a str, &'a str)>,
    }
    let mut classes: BTreeMap<u32, Class<'_>> = BTreeMap::new();
    for source in &resolved.sources {
        let Some(spec) = tables.sources.get(&source.address).filter(|spec| spec.class != 0) else {
            continue;
        };
        let class = classes.entry(spec.class).or_default();
        for (mesh, name) in &source.dataplanes {
            class.dataplanes.insert((mesh, name));
            let key = (mesh.as_str(), name.as_str());
            let at = set.dataplanes.binary_search_by(|plane| {
                (plane.meta.mesh.as_str(), plane.meta.name.as_str()).cmp(&key)
            });
            if let Some(plane) = at.ok().and_then(|at| set.dataplanes.get(at)) {
                class.services.extend(services(plane).map(|service| (mesh.as_str(), service)));
            }
        }
    }
    let mut named: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (&id, class) in &classes {
        let of = if class.services.is_empty() { &class.dataplanes } else { &class.services };
        named.entry(list(of)).or_default().push(id);
    }
    let mut names = BTreeMap::new();
    for (name, ids) in named {
        let alone = ids.len() == 1;
        for id in ids {
            let first = classes.get(&id).and_then(|class| class.dataplanes.first());
            let name = match first {
                Some((mesh, dataplane)) if !alone => format!("{name} ({mesh}/{dataplane})"),
                _ => name.clone(),
            };
            names.insert(id, name.into());
        }
    }
    names
}

/// What a workload offers, or passes on as a gateway.
fn services(plane: &Dataplane) -> impl Iterator<Item = &str> {
    let tags = plane.inbounds.iter().map(|inbound| &inbound.tags).chain(&plane.gateway);
    tags.filter_map(|tags| tags.get(SERVICE_TAG)).map(String::as_str)
}

fn list(of: &BTreeSet<(&str, &str)>) -> String {
    let listed: Vec<String> =
        of.iter().take(LISTED).map(|(mesh, name)| format!("{mesh}/{name}")).collect();
    let more = of.len().saturating_sub(LISTED);
    if more == 0 { listed.join(",") } else { format!("{} +{more}", listed.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::{Assignment, Limits, compile},
        policy::{ReadOptions, SourceText, read},
        resolve::resolve,
        settings::Settings,
    };

    /// `NAME: ADDRESS, TAGS` for each workload.
    const WORKLOADS: &str = "\
web-1: 10.0.0.1, kuma.io/service: web, version: '1'
web-2: 10.0.0.2, kuma.io/service: web, version: '2'
job-1: 10.0.0.3, kuma.io/service: job
redis-1: 10.0.0.9, kuma.io/service: redis";

    fn route(name: &str, source: &str) -> String {
        format!(
            "---\ntype: TrafficRoute\nmesh: default\nname: {name}\nsources: [{{match: \
             {{{source}}}}}]\ndestinations: [{{match: {{kuma.io/service: redis}}}}]\nconf:\n  \
             split:\n  - {{weight: 1, destination: {{kuma.io/service: redis, v: '{name}'}}}}\n  \
             - {{weight: 9, destination: {{kuma.io/service: redis}}}}\n"
        )
    }

    /// (route, source class, backend, tags), sorted.
    fn names(routes: &str) -> Vec<(String, String)> {
        let mut text = "type: Mesh\nname: default\n".to_owned();
        for line in WORKLOADS.lines() {
            let (name, rest) = line.split_once(": ").unwrap();
            let (address, tags) = rest.split_once(", ").unwrap();
            text.push_str(&format!(
                "---\ntype: Dataplane\nmesh: default\nname: {name}\nnetworking: {{address: \
                 {address}, inbound: [{{port: 80, tags: {{{tags}}}}}]}}\n"
            ));
        }
        text.push_str(routes);
        let text = SourceText { name: "a.yaml".into(), text: text.into() };
        let reading = read(vec![text], &ReadOptions::default());
        assert!(reading.report.valid(), "{:?}", reading.report);
        let settings = Settings::default().resolve_settings(Default::default());
        let resolved = resolve(&reading.set, &settings);
        let tables = compile(&resolved, &Assignment::default(), &Limits::default()).unwrap();
        let mut names: Vec<(String, String)> = runs(&reading.set, &resolved, &tables)
            .flat_map(|run| (run.names)())
            .filter(|name| &*name.service == "redis" && name.vip.starts_with("240."))
            .map(|name| {
                (name.source_class.to_string(), format!("{}{{{}}}", name.backend, name.tags))
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn class_is_named_by_the_services_of_its_workloads() {
        let named = names(&route("a", "kuma.io/service: web"));
        let classes: BTreeSet<&str> = named.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(Vec::from_iter(classes), ["default/web", "everybody"]);
        assert!(named.contains(&("default/web".into(), "redis{v=a}".into())), "{named:?}");
        assert!(named.contains(&("everybody".into(), "redis{}".into())), "{named:?}");
    }

    #[test]
    fn classes_of_one_service_are_told_apart_by_their_first_dataplane() {
        let routes = [
            route("a", "kuma.io/service: web, version: '1'"),
            route("b", "kuma.io/service: web, version: '2'"),
        ];
        let classes: BTreeSet<String> =
            names(&routes.concat()).into_iter().map(|(class, _)| class).collect();
        assert_eq!(
            Vec::from_iter(classes),
            ["default/web (default/web-1)", "default/web (default/web-2)", "everybody"]
        );
    }

    #[test]
    fn long_lists_of_services_end_in_a_number() {
        let of = BTreeSet::from([("m", "a"), ("m", "b"), ("m", "c"), ("m", "d"), ("m", "e")]);
        assert_eq!(list(&of), "m/a,m/b,m/c +2");
    }
}
