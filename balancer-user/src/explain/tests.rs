//! Questions and answers.

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Decision, Input, Layer, Query, QueryError, RequestQuery, explain};
use crate::{
    compile::{Assignment, Limits, compile},
    policy::{Dataplane, HashFunction, LoadBalancer, PolicySet, TrafficRoute},
    resolve::{
        BackendState, NoRoute, ResolveSettings, resolve,
        tests::world::{dataplane, locality_aware_mesh, route, set, settings},
    },
};

fn shop() -> Vec<Dataplane> {
    vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis,version=1.0"),
        dataplane("redis-2", "10.0.0.22").inbound(6379, "service=redis,version=2.0"),
        dataplane("redis-3", "10.0.0.23").inbound(6379, "service=redis,version=2.0"),
        dataplane("web-1", "10.0.0.11").inbound(80, "service=web,version=a"),
        dataplane("web-2", "10.0.0.12")
            .inbound(80, "service=web,version=b")
            .outbound("10.9.9.9:6379", "service=redis"),
    ]
}

fn canary() -> TrafficRoute {
    route("redis-canary")
        .from("service=web")
        .to("redis")
        .split(90, "service=redis,version=1.0")
        .split(10, "service=redis,version=2.0")
        .balanced(LoadBalancer::Maglev)
}

fn ask_with(
    set: &PolicySet,
    settings: &ResolveSettings,
    query: &Query,
) -> Result<Answer, QueryError> {
    let resolved = resolve(set, settings);
    let tables = compile(&resolved, &Assignment::default(), &Limits::default()).unwrap();
    explain(&Input { set, settings, resolved: &resolved, tables: Some(&tables) }, query)
}

pub(super) fn ask(set: &PolicySet, from: &str, to: &str) -> Result<Answer, QueryError> {
    let query = Query { from: from.to_owned(), to: to.to_owned(), ..Query::default() };
    ask_with(set, &settings(), &query)
}

pub(super) fn has_step(answer: &Answer, words: &str) {
    assert!(answer.steps.iter().any(|step| step.contains(words)), "{words}: {:#?}", answer.steps);
}

#[test]
fn answer_has_the_fields_of_the_contract_in_order() {
    let answer = ask(&set(shop(), vec![canary()]), "web-1", "redis").unwrap();
    let mut value = serde_json::to_value(&answer).unwrap();
    let fields: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "source",
            "destination",
            "protocol",
            "layer",
            "policy",
            "rule",
            "decision",
            "backends",
            "load_balancer",
            "request",
            "response",
            "steps"
        ]
    );
    assert!(value["steps"].take().as_array().unwrap().len() > 5);
    let backends = value["backends"].take();
    assert_eq!(
        value,
        json!({
            "source": {"dataplane": "web-1", "address": "10.0.0.11"},
            "destination": {"service": "redis", "address": "10.9.9.9:6379"},
            "protocol": "tcp", "layer": "l4",
            "policy": {"kind": "TrafficRoute", "mesh": "default", "name": "redis-canary"},
            "rule": null,
            "decision": "forward",
            "backends": null,
            "load_balancer": {"type": "maglev", "slots": answer.load_balancer.as_ref().unwrap().slots},
            "request": null, "response": null, "steps": null
        })
    );
    let first = &backends[0];
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(names, ["service", "tags", "weight", "share", "state", "reals"]);
    assert_eq!(first["tags"], json!({"version": "1.0"}));
    assert_eq!((&first["weight"], &first["state"]), (&json!(90), &json!("ok")));
    assert_eq!(first["reals"][0]["address"], json!("10.0.0.21:6379"));
}

#[test]
fn shares_are_the_weights_and_steps_say_the_slots() {
    let answer = ask(&set(shop(), vec![canary()]), "web-1", "redis").unwrap();
    let slots = answer.load_balancer.unwrap().slots.unwrap();
    assert_eq!(slots, 1021);
    for (backend, share) in answer.backends.iter().zip([0.9, 0.1]) {
        assert!((backend.share - share).abs() < 1e-9, "{backend:?}");
        let of_reals: f64 = backend.reals.iter().map(|real| real.share).sum();
        assert!((of_reals - backend.share).abs() < 1e-9);
    }
    assert_eq!(answer.backends[1].reals.len(), 2);
    assert!(answer.backends[1].reals.iter().all(|real| (real.share - 0.05).abs() < 1e-9));
    for said in ["919 of 1021 slots", "102 of 1021 slots"] {
        assert!(answer.steps.iter().any(|step| step.contains(said)), "{:#?}", answer.steps);
    }
}

#[test]
fn reals_of_a_ring_have_the_share_of_their_arcs() {
    let ring = LoadBalancer::RingHash {
        function: HashFunction::XxHash,
        min_ring_size: 64,
        max_ring_size: 1024,
    };
    let mut policy = canary();
    policy.conf.load_balancer = Some(ring);
    let answer = ask(&set(shop(), vec![policy]), "web-1", "redis").unwrap();
    let reals: Vec<f64> = answer.backends[1].reals.iter().map(|real| real.share).collect();
    assert!((reals.iter().sum::<f64>() - 0.1).abs() < 1e-9, "{reals:?}");
    assert!(reals[0] != reals[1] && reals.iter().all(|share| *share > 0.0), "{reals:?}");
}

#[test]
fn without_tables_shares_are_the_weights() {
    let world = set(shop(), vec![canary()]);
    let settings = settings();
    let resolved = resolve(&world, &settings);
    let input = Input { set: &world, settings: &settings, resolved: &resolved, tables: None };
    let query = Query { from: "web-1".into(), to: "redis".into(), ..Query::default() };
    let answer = explain(&input, &query).unwrap();
    assert_eq!(answer.load_balancer.unwrap().slots, None);
    assert!((answer.backends[0].share - 0.9).abs() < 1e-9);
    assert!((answer.backends[1].reals[0].share - 0.05).abs() < 1e-9);
}

#[test]
fn source_is_named_by_dataplane_address_or_tags() {
    let world = set(shop(), vec![canary()]);
    for from in ["web-1", "default/web-1", "10.0.0.11", "::ffff:10.0.0.11", "version=a"] {
        let answer = ask(&world, from, "redis").unwrap();
        assert_eq!(answer.source.dataplane.as_deref(), Some("web-1"), "{from}");
        assert_eq!(answer.source.address.as_deref(), Some("10.0.0.11"), "{from}");
        assert_eq!(answer.policy.as_ref().unwrap().name, "redis-canary", "{from}");
    }
    let stranger = ask(&world, "192.0.2.1", "redis").unwrap();
    assert_eq!((stranger.source.dataplane.as_ref(), stranger.decision), (None, Decision::Direct));
    has_step(
        &stranger,
        "192.0.2.1 is the address of no Dataplane, so it counts as kuma.io/service=unknown",
    );
    let both = ask(&world, "kuma.io/service=web", "redis").unwrap();
    has_step(&both, "1 more with these tags are routed the same");
}

#[test]
fn tags_that_nobody_has_are_a_workload_that_could_be() {
    let world = set(shop(), vec![canary()]);
    let answer = ask(&world, "kuma.io/service=web,version=z", "redis").unwrap();
    assert_eq!((answer.source.dataplane.as_ref(), answer.source.address.as_ref()), (None, None));
    assert_eq!(answer.policy.as_ref().unwrap().name, "redis-canary");
    assert!(answer.load_balancer.as_ref().unwrap().slots.is_some(), "the table of the same route");
    has_step(&answer, "no Dataplane of mesh default has these tags");
    let other = ask(&world, "kuma.io/service=batch", "redis").unwrap();
    assert_eq!(other.decision, Decision::Direct);
}

#[test]
fn tags_of_dataplanes_that_differ_are_ambiguous() {
    let of_a = route("of-a").from("version=a").to("redis").split(1, "service=redis");
    let error = ask(&set(shop(), vec![of_a]), "kuma.io/service=web", "redis").unwrap_err();
    assert!(error.message.contains("2 Dataplanes have the tags"), "{error}");
    assert_eq!(error.candidates, ["web-1", "web-2"]);
}

#[test]
fn unknown_names_are_refused_with_what_could_be_meant() {
    let world = set(shop(), vec![canary()]);
    let error = ask(&world, "web", "redis").unwrap_err();
    assert_eq!(error.message, "no Dataplane is named `web` (there is a service of that name)");
    assert_eq!(error.candidates[0], "kuma.io/service=web");
    assert!(error.candidates.contains(&"web-1".to_owned()));
    let error = ask(&world, "web-1", "rediss:6379").unwrap_err();
    assert_eq!(error.message, "no service is named `rediss:6379`");
    assert_eq!(error.candidates, ["redis"]);
    let error = ask(&world, "web-1", "redis:1").unwrap_err();
    assert_eq!(error.message, "service `redis` has no VIP at port 1");
    assert_eq!(error.candidates, ["10.9.9.9:6379"]);
    let error = ask(&world, "web-1", "prod/redis").unwrap_err();
    assert_eq!(error.message, "mesh prod has no service `redis`");
    let error = ask(&world, "version=", "redis").unwrap_err();
    assert!(error.message.contains("not of the form KEY=VALUE"), "{error}");
}

#[test]
fn names_in_two_meshes_are_ambiguous_unless_the_source_decides() {
    let mut dataplanes = shop();
    dataplanes.push(dataplane("web-1", "10.1.0.11").inbound(80, "service=web").mesh("prod"));
    dataplanes.push(dataplane("redis-1", "10.1.0.21").inbound(6379, "service=redis").mesh("prod"));
    let world = set(dataplanes, vec![canary()]);
    let error = ask(&world, "web-1", "redis").unwrap_err();
    assert_eq!(error.candidates, ["default/web-1", "prod/web-1"]);
    let answer = ask(&world, "prod/web-1", "redis").unwrap();
    assert_eq!(answer.backends[0].reals[0].address, "10.1.0.21:6379");
    let error = ask(&world, "192.0.2.1", "redis").unwrap_err();
    assert_eq!(error.candidates, ["default/redis", "prod/redis"]);
    let across = ask(&world, "prod/web-1", "default/redis").unwrap();
    has_step(
        &across,
        "which mesh default does not know: there it counts as kuma.io/service=unknown",
    );
    assert_eq!(across.decision, Decision::Direct);
}

#[test]
fn destination_is_a_service_with_a_port_or_an_address() {
    let mut dataplanes = shop();
    dataplanes.push(dataplane("db", "10.0.0.31").inbound(1, "service=db.shop.svc:5432"));
    let world = set(dataplanes, vec![canary()]);
    for to in ["redis", "redis:6379", "10.9.9.9:6379", "10.9.9.9", "default/redis:6379"] {
        let answer = ask(&world, "web-1", to).unwrap();
        assert_eq!(answer.destination.service.as_deref(), Some("redis"), "{to}");
    }
    for to in ["db.shop.svc:5432", "db.shop.svc:5432:5432"] {
        let answer = ask(&world, "web-1", to).unwrap();
        assert_eq!(answer.destination.service.as_deref(), Some("db.shop.svc:5432"), "{to}");
    }
}

#[test]
fn address_that_is_no_vip_is_left_alone() {
    let world = set(shop(), vec![canary()]);
    let answer = ask(&world, "web-1", "10.0.0.21:6379").unwrap();
    assert_eq!((answer.decision, answer.destination.service.as_ref()), (Decision::Direct, None));
    assert!(answer.backends.is_empty() && answer.load_balancer.is_none());
    has_step(&answer, "10.0.0.21:6379 is no VIP; balancer leaves it alone");
    has_step(&answer, "it is a real, reached without any policy");
    let other_port = ask(&world, "web-1", "10.9.9.9:80").unwrap();
    has_step(&other_port, "the address is a VIP at port 6379 (service redis)");
}

#[test]
fn steps_tell_who_was_considered_and_why_one_won() {
    let all = route("all").from("service=*").to("*").split(1, "service=*");
    let other = route("other").from("service=batch").to("web").split(1, "service=web");
    let answer = ask(&set(shop(), vec![canary(), all, other]), "web-1", "redis").unwrap();
    has_step(
        &answer,
        "2 of 3 TrafficRoutes of mesh default match; redis-canary wins with 2 tags, 2 exact",
    );
    has_step(
        &answer,
        "all also matches and ranks 2 tags, 0 exact; redis-canary goes first: as many tags, more of them exact",
    );
    has_step(&answer, "not matching: other (source and destination)");
    has_step(&answer, "weight 90 of 100");
    has_step(&answer, "maglev: the slot is a hash");
    has_step(&answer, "addresses with the same routes, 2 in all");
}

#[test]
fn steps_tell_ties() {
    let b = route("b").from("service=web").to("*").split(1, "service=*").created(20.0);
    let c = route("c").from("service=*").to("redis").split(1, "service=redis").created(30.0);
    let answer = ask(&set(shop(), vec![b.clone(), c]), "web-1", "redis").unwrap();
    assert_eq!(answer.policy.as_ref().unwrap().name, "c");
    has_step(&answer, "c goes first: equal rank, created later (30 against 20");
    let c = route("c").from("service=*").to("redis").split(1, "service=redis").created(20.0);
    let answer = ask(&set(shop(), vec![b, c]), "web-1", "redis").unwrap();
    has_step(&answer, "b goes first: equal rank and creation time, smaller name");
    has_step(&answer, "conf.split[0].destination: kuma.io/service=* is the service called, redis");
    has_step(&answer, "the policy names no load balancer");
}

#[test]
fn steps_tell_what_the_outbound_adds() {
    let mut dataplanes = shop();
    dataplanes.push(
        dataplane("tagged", "10.0.0.13")
            .inbound(80, "service=tagged")
            .outbound("10.9.9.9:6379", "service=redis,version=2.0,region=eu"),
    );
    let wild = route("wild").from("service=*").to("redis").split(1, "service=redis,version=*");
    let world = set(dataplanes, vec![wild]);
    let answer = ask(&world, "tagged", "redis").unwrap();
    has_step(&answer, "version=* is 2.0, as the outbound says, region=eu comes from the outbound");
    assert_eq!(answer.backends[0].state, BackendState::Empty);
    has_step(&answer, "no ready IPv4 endpoint has these tags, so this share is reset");
    let plain = ask(&world, "web-1", "redis").unwrap();
    has_step(&plain, "version=* asks for nothing, as the outbound does not name it");
}

#[test]
fn refused_and_drained_shares_are_shown() {
    let split = route("split")
        .from("service=*")
        .to("redis")
        .split(3, "service=redis,version=1.0")
        .split(1, "service=nobody")
        .split(0, "service=redis,version=2.0");
    let answer = ask(&set(shop(), vec![split]), "web-1", "redis").unwrap();
    let states: Vec<BackendState> = answer.backends.iter().map(|backend| backend.state).collect();
    assert_eq!(states, [BackendState::Ok, BackendState::Invalid, BackendState::Drained]);
    assert!((answer.backends[1].share - 0.25).abs() < 0.01 && answer.backends[1].reals.is_empty());
    assert!(answer.backends[2].share == 0.0 && answer.backends[2].reals.len() == 2);
    has_step(&answer, "no Dataplane of mesh default offers the service, so this share is reset");
    has_step(&answer, "so it takes no new connections; 2 reals");
}

#[test]
fn no_route_deny_rejects() {
    let other = route("other").from("service=nobody").to("redis").split(1, "service=redis");
    let deny = ResolveSettings { no_route: NoRoute::Deny, ..settings() };
    let query = Query { from: "web-1".into(), to: "redis".into(), ..Query::default() };
    let answer = ask_with(&set(shop(), vec![other]), &deny, &query).unwrap();
    assert_eq!(answer.decision, Decision::Reject);
    assert!(answer.backends.is_empty() && answer.load_balancer.is_none());
    has_step(
        &answer,
        "the TrafficRoute of mesh default does not match: connections are reset (no_route: deny)",
    );
    let direct = ask(&set(shop(), Vec::new()), "web-1", "redis").unwrap();
    has_step(&direct, "mesh default has no TrafficRoute, so the service is reached directly");
}

#[test]
fn described_request_makes_no_difference_where_no_http_rule_applies_and_that_is_said() {
    let http = canary().http(true, "service=redis,version=2.0");
    let query = Query {
        from: "web-1".into(),
        to: "redis".into(),
        request: Some(RequestQuery {
            method: Some("GET".into()),
            path: Some("/offers".into()),
            host: None,
            headers: vec![("x-a".into(), "b".into())],
        }),
        all: true,
        protocol: None,
    };
    let answer = ask_with(&set(shop(), vec![http]), &settings(), &query).unwrap();
    assert_eq!((answer.layer, answer.backends.len()), (Layer::L4, 2));
    assert_eq!((&answer.request, &answer.response), (&None, &None));
    has_step(
        &answer,
        "the http section of redis-canary (1 entry) has no effect: the service is handled as tcp",
    );
    let apart = "method GET, path /offers, header x-a: b makes no difference: this route tells no \
                 requests apart";
    has_step(&answer, apart);
    let routes = answer.routes.as_ref().unwrap();
    assert_eq!((routes.len(), &routes[0].backends), (1, &answer.backends));
    let plain = ask_with(&set(shop(), vec![canary()]), &settings(), &query).unwrap();
    has_step(&plain, apart);
}

#[test]
fn family_of_the_source_chooses_the_vip() {
    let mut dataplanes = shop();
    dataplanes.push(dataplane("redis-6", "fd00::21").inbound(6379, "service=redis"));
    dataplanes.push(dataplane("web-6", "fd00::11").inbound(80, "service=web"));
    let world = set(dataplanes, Vec::new());
    let four = ask(&world, "web-1", "redis").unwrap();
    assert_eq!(four.destination.address, "10.9.9.9:6379");
    has_step(&four, "(1 of IPv6 left out: a VIP carries its own family)");
    let six = ask(&world, "web-6", "redis").unwrap();
    assert!(six.destination.address.starts_with("[fd62:616c::"), "{}", six.destination.address);
    assert_eq!(six.backends[0].reals[0].address, "[fd00::21]:6379");
}

#[test]
fn vips_with_different_routes_must_be_told_apart() {
    let mut dataplanes = shop();
    dataplanes.push(
        dataplane("picky", "10.0.0.13")
            .inbound(80, "service=picky")
            .outbound("10.9.9.9:6379", "service=redis,version=2.0")
            .outbound("10.9.9.10:6379", "service=redis"),
    );
    let world = set(dataplanes, Vec::new());
    let error = ask(&world, "picky", "redis").unwrap_err();
    assert_eq!(error.candidates, ["10.9.9.9:6379", "10.9.9.10:6379"]);
    let answer = ask(&world, "web-1", "redis").unwrap();
    has_step(&answer, "routed the same: 10.9.9.10:6379");
}

#[test]
fn locality_says_what_stays_out() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1").inbound(80, "service=web,zone=east"),
        dataplane("b", "10.0.0.2").inbound(80, "service=web,zone=west"),
    ];
    let mut world = set(dataplanes, Vec::new());
    world.meshes.push_back(Arc::new(locality_aware_mesh()));
    let east = ResolveSettings { zone: Some("east".to_owned()), ..settings() };
    let query = Query { from: "a".into(), to: "web".into(), ..Query::default() };
    let answer = ask_with(&world, &east, &query).unwrap();
    assert_eq!(answer.backends[0].reals.len(), 1);
    has_step(&answer, "1 endpoint of web in other zones left out while zone east has one");
}
