use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    Api, HashFunction, ReadOptions, ServiceKind,
    testing::{LENIENT, errors, exactly, holds, nearly, reading, refused, warnings},
};

const KUMA_27: ReadOptions = exactly(Api::Kuma27);
const KUMA_29: ReadOptions = exactly(Api::Kuma29);
const KUMA_3: ReadOptions = exactly(Api::Kuma3);
const WITH_TAGS: &[&ReadOptions] = &[&LENIENT, &KUMA_27, &KUMA_29];
const DEFAULT: &str = "spec.to[0].default";

/// A MeshLoadBalancingStrategy whose `spec` is this flow mapping.
fn policy_of(spec: &str) -> String {
    format!("type: MeshLoadBalancingStrategy\nname: s\nmesh: default\nspec: {spec}\n")
}

/// One with these items of `to`.
fn to(items: &str) -> String {
    policy_of(&format!("{{targetRef: {{kind: Mesh}}, to: [{items}]}}"))
}

/// One whose only item has this `default`.
fn doing(default: &str) -> String {
    to(&format!("{{targetRef: {{kind: MeshService, name: backend}}, default: {default}}}"))
}

/// One with this load balancer.
fn balancing(balancer: &str) -> String {
    doing(&format!("{{loadBalancer: {balancer}}}"))
}

/// One with these hash policies.
fn hashing(policies: &str) -> String {
    doing(&format!("{{hashPolicies: {policies}}}"))
}

/// One with this locality.
fn local(locality: &str) -> String {
    doing(&format!("{{localityAwareness: {locality}}}"))
}

fn read(body: &str) -> MeshLoadBalancingStrategy {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    let list = &mut reading.set.mesh_load_balancing_strategies;
    list.pop_back().map(Arc::unwrap_or_clone).expect("a MeshLoadBalancingStrategy")
}

fn algorithm(balancer: &str) -> LoadBalancer {
    read(&balancing(balancer)).to[0].load_balancer.expect("a load balancer").algorithm
}

/// The errors about `default`, without its path.
fn of_default(body: &str, options: &ReadOptions) -> Vec<String> {
    let prefix = format!("{DEFAULT}.");
    let found = errors(body, options).into_iter();
    found.map(|f| f.strip_prefix(&prefix).map_or(f.clone(), str::to_owned)).collect()
}

fn remarks(body: &str) -> Vec<String> {
    warnings(body, &LENIENT)
}

#[test]
fn a_strategy_is_read_as_it_is_written() {
    let body = policy_of(
        "
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: MeshService, name: backend}
    default:
      loadBalancer:
        type: RingHash
        ringHash: {hashFunction: XXHash, minRingSize: 1024, maxRingSize: 65536}
      hashPolicies:
      - {type: Header, header: {name: X-User}, terminal: true}
      - {type: Cookie, cookie: {name: sid, ttl: 1h, path: /}}
      - {type: Connection, connection: {sourceIP: true}}
      localityAwareness:
        localZone: {affinityTags: [{key: k8s.io/node}, {key: rack}]}
        crossZone:
          failover:
          - {from: {zones: [east]}, to: {type: Only, zones: [west]}}
          - {to: {type: AnyExcept, zones: [north]}}
          failoverThreshold: {percentage: 70}
",
    );
    let strategy = read(&body);
    let one = &strategy.to[0];
    assert_eq!(one.field, "spec.to[0]");
    assert_eq!(
        one.load_balancer,
        Some(StrategyBalancer {
            algorithm: LoadBalancer::RingHash {
                function: HashFunction::XxHash,
                min_ring_size: 1024,
                max_ring_size: 65_536
            },
            active_request_bias: None,
            table_size: None,
        })
    );
    let policies = one.hash_policies.as_ref().expect("hash policies");
    let keys: Vec<&HashKey> = policies.iter().map(|policy| &policy.key).collect();
    let cookie = HashKey::Cookie {
        name: "sid".to_owned(),
        ttl_ms: Some(3_600_000),
        path: Some("/".to_owned()),
    };
    assert_eq!(keys, [&HashKey::Header("x-user".to_owned()), &cookie, &HashKey::SourceAddress]);
    assert_eq!(policies.iter().map(|p| p.terminal).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(policies[1].field, "spec.to[0].default.hashPolicies[1]");
    let locality = one.locality.as_ref().expect("a locality");
    let east = vec!["east".to_owned()];
    assert_eq!(
        locality.failover,
        Some(vec![
            Failover { from: Some(east), to: FailoverTo::Only(vec!["west".to_owned()]) },
            Failover { from: None, to: FailoverTo::AnyExcept(vec!["north".to_owned()]) },
        ])
    );
    assert!((locality.threshold_percent - 70.0).abs() < 1e-9 && !locality.disabled);
    assert_eq!(locality.affinity[1], AffinityTag { key: "rack".to_owned(), weight: None });
    assert_eq!(remarks(&body), [""; 0]);
    assert_eq!(errors(&body, &KUMA_29), [""; 0]);
}

#[test]
fn what_may_be_dialled_depends_on_the_version() {
    let item = |target: &str| {
        to(&format!(
            "{{targetRef: {target}, default: {{hashPolicies: [{{type: Header, header: {{name: a}}}}]}}}}"
        ))
    };
    let cases = [
        ("{kind: Mesh}", [true, true, true]),
        ("{kind: MeshService, name: a}", [true, true, false]),
        ("{kind: MeshService, labels: {a: b}}", [true, true, true]),
        ("{kind: MeshMultiZoneService, labels: {a: b}}", [false, true, true]),
        ("{kind: MeshExternalService, labels: {a: b}}", [false, false, true]),
        ("{kind: MeshHTTPRoute, labels: {a: b}}", [false, false, true]),
    ];
    for (target, right) in cases {
        assert_eq!(errors(&item(target), &LENIENT), [""; 0], "{target}");
        for (options, right) in [&KUMA_27, &KUMA_29, &KUMA_3].into_iter().zip(right) {
            assert_eq!(errors(&item(target), options).is_empty(), right, "{target} {options:?}");
        }
    }
    let route = read(&item("{kind: MeshHTTPRoute, name: r, namespace: shop}")).to.remove(0).target;
    let by = ReferredBy::Name { name: "r".to_owned(), namespace: Some("shop".to_owned()) };
    assert_eq!(route, StrategyTarget::HttpRoute(by));
    let service = read(&item("{kind: MeshMultiZoneService, name: a}")).to.remove(0).target;
    assert!(
        matches!(service, StrategyTarget::Service(s) if s.kind == ServiceKind::MeshMultiZoneService)
    );
    let kind: &[&str] = &["spec.to[0].targetRef.kind"];
    refused(
        &[
            ("{}", kind),
            ("{kind: MeshSubset}", kind),
            ("{kind: MeshService}", &["spec.to[0].targetRef.name"]),
            ("{kind: Mesh, name: a}", &["spec.to[0].targetRef.name"]),
        ],
        WITH_TAGS,
        item,
    );
    refused(&[("{kind: MeshHTTPRoute}", &["spec.to[0].targetRef.name"])], &[&LENIENT], item);
    assert_eq!(errors(&to("{default: {}}"), &LENIENT), kind);
}

#[test]
fn below_a_gateway_a_load_balancer_is_for_all_of_it() {
    let of = |target: &str, default: &str| {
        policy_of(&format!(
            "{{targetRef: {{kind: MeshGateway, name: e}}, to: [{{targetRef: {target}, default: {default}}}]}}"
        ))
    };
    let balancer = "{loadBalancer: {type: Random}}";
    let service = "{kind: MeshService, name: a}";
    assert_eq!(errors(&of("{kind: Mesh}", balancer), &KUMA_29), [""; 0]);
    assert_eq!(errors(&of(service, balancer), &KUMA_29), ["spec.to[0].targetRef.kind"]);
    let locality = "{localityAwareness: {disabled: true}}";
    assert_eq!(errors(&of(service, locality), &KUMA_29), [""; 0]);
}

#[test]
fn every_load_balancer_is_read_with_its_defaults() {
    let ring = |function, min_ring_size, max_ring_size| LoadBalancer::RingHash {
        function,
        min_ring_size,
        max_ring_size,
    };
    let cases = [
        ("{type: RoundRobin}", LoadBalancer::RoundRobin),
        ("{type: RoundRobin, roundRobin: {}}", LoadBalancer::RoundRobin),
        ("{type: Random, random: {}}", LoadBalancer::Random),
        ("{type: Maglev}", LoadBalancer::Maglev),
        ("{type: LeastRequest}", LoadBalancer::LeastRequest { choice_count: 2 }),
        (
            "{type: LeastRequest, leastRequest: {choiceCount: 4}}",
            LoadBalancer::LeastRequest { choice_count: 4 },
        ),
        ("{type: RingHash}", ring(HashFunction::XxHash, 1024, 8_000_000)),
        (
            "{type: RingHash, ringHash: {hashFunction: MurmurHash2, minRingSize: 1, maxRingSize: 2}}",
            ring(HashFunction::MurmurHash2, 1, 2),
        ),
    ];
    for (balancer, expected) in cases {
        assert_eq!(algorithm(balancer), expected, "{balancer}");
    }
    let with = |body: &str| read(&balancing(body)).to[0].load_balancer.expect("a load balancer");
    assert_eq!(with("{type: Maglev, maglev: {tableSize: 5000011}}").table_size, Some(5_000_011));
    for bias in ["1.5", "'1.5'"] {
        let read =
            with(&format!("{{type: LeastRequest, leastRequest: {{activeRequestBias: {bias}}}}}"));
        assert_eq!(read.active_request_bias, Some(1.5));
    }
}

#[test]
fn what_is_wrong_with_a_load_balancer_is_said_at_its_field() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["type"]),
        ("{type: roundRobin}", &["type"]),
        ("{type: Maglev, maglevs: {}}", &["maglevs"]),
        ("{type: LeastRequest, leastRequest: {choiceCount: 1}}", &["leastRequest.choiceCount"]),
        ("{type: LeastRequest, leastRequest: {choiceCount: 256}}", &["leastRequest.choiceCount"]),
        (
            "{type: LeastRequest, leastRequest: {activeRequestBias: '-1'}}",
            &["leastRequest.activeRequestBias"],
        ),
        (
            "{type: LeastRequest, leastRequest: {activeRequestBias: much}}",
            &["leastRequest.activeRequestBias"],
        ),
        ("{type: RingHash, ringHash: {hashFunction: SipHash}}", &["ringHash.hashFunction"]),
        ("{type: RingHash, ringHash: {minRingSize: 0}}", &["ringHash.minRingSize"]),
        ("{type: RingHash, ringHash: {maxRingSize: 8000001}}", &["ringHash.maxRingSize"]),
        ("{type: Maglev, maglev: {tableSize: 0}}", &["maglev.tableSize"]),
        ("{type: Maglev, maglev: {tableSize: 5000012}}", &["maglev.tableSize"]),
    ];
    for (balancer, fields) in cases {
        for options in WITH_TAGS {
            let found = of_default(&balancing(balancer), options);
            let found: Vec<_> =
                found.iter().map(|f| f.strip_prefix("loadBalancer.").unwrap_or(f)).collect();
            assert_eq!(found, *fields, "{balancer} {:?}", options.api);
        }
    }
    // What Kuma leaves to the proxy.
    for (balancer, field) in [
        ("{type: Maglev, maglev: {tableSize: 65536}}", "maglev.tableSize"),
        ("{type: RingHash, ringHash: {minRingSize: 3, maxRingSize: 2}}", "ringHash.maxRingSize"),
        ("{type: RingHash, ringHash: {maxRingSize: 1000}}", "ringHash.maxRingSize"),
    ] {
        let body = balancing(balancer);
        assert_eq!(of_default(&body, &LENIENT), [format!("loadBalancer.{field}")]);
        assert_eq!(of_default(&body, &KUMA_29), [""; 0]);
    }
    let old = balancing("{type: RingHash, ringHash: {hashFunction: MURMUR_HASH_2}}");
    assert_eq!(remarks(&old), [format!("{DEFAULT}.loadBalancer.ringHash.hashFunction")]);
    assert_eq!(of_default(&old, &KUMA_29), ["loadBalancer.ringHash.hashFunction"]);
}

#[test]
fn what_is_wrong_with_hash_policies_is_said_at_their_field() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["type"]),
        ("{type: Path}", &["type"]),
        ("{type: Header}", &["header"]),
        ("{type: Cookie}", &["cookie"]),
        ("{type: Connection}", &["connection"]),
        ("{type: QueryParameter}", &["queryParameter"]),
        ("{type: FilterState}", &["filterState"]),
        ("{type: SourceIP}", &["connection"]),
        ("{type: Header, header: {}}", &["header.name"]),
        ("{type: Header, header: {name: ''}}", &["header.name"]),
        ("{type: Header, header: {name: 'a b'}}", &["header.name"]),
        ("{type: Cookie, cookie: {name: ''}}", &["cookie.name"]),
        ("{type: Cookie, cookie: {name: a, ttl: 1d}}", &["cookie.ttl"]),
        ("{type: Cookie, cookie: {name: a, path: b}}", &["cookie.path"]),
        ("{type: Cookie, cookie: {name: a, path: '/;b'}}", &["cookie.path"]),
        ("{type: QueryParameter, queryParameter: {name: ''}}", &["queryParameter.name"]),
        ("{type: FilterState, filterState: {key: ''}}", &["filterState.key"]),
        ("{type: Header, header: {name: a}, terminal: 1}", &["terminal"]),
    ];
    for (policy, fields) in cases {
        for options in WITH_TAGS {
            let found = of_default(&hashing(&format!("[{policy}]")), options);
            let found: Vec<_> =
                found.iter().map(|f| f.strip_prefix("hashPolicies[0].").unwrap_or(f)).collect();
            assert_eq!(found, *fields, "{policy} {:?}", options.api);
        }
    }
    let source = hashing("[{type: SourceIP, connection: {sourceIP: true}}]")
        .replace("name: backend", "labels: {a: b}");
    assert_eq!(of_default(&source, &KUMA_3), ["hashPolicies[0].type"]);
}

#[test]
fn policies_that_yield_no_hash_are_left_out_with_a_warning() {
    for policy in [
        "{type: SourceIP, connection: {sourceIP: true}}",
        "{type: Connection, connection: {}}",
        "{type: Connection, connection: {sourceIP: false}}",
        "{type: FilterState, filterState: {key: a}}",
    ] {
        let body =
            hashing(&format!("[{policy}, {{type: QueryParameter, queryParameter: {{name: a}}}}]"));
        assert_eq!(remarks(&body), [format!("{DEFAULT}.hashPolicies[0]")], "{policy}");
        let policies = read(&body).to[0].hash_policies.clone().expect("hash policies");
        assert_eq!(policies.len(), 1, "{policy}");
        assert_eq!(policies[0].key, HashKey::QueryParameter("a".to_owned()));
    }
}

#[test]
fn hash_policies_stand_in_the_load_balancer_up_to_2_14_and_not_in_both_places() {
    let policies = "hashPolicies: [{type: Header, header: {name: a}}]";
    for (kind, part) in [("RingHash", "ringHash"), ("Maglev", "maglev")] {
        let old = balancing(&format!("{{type: {kind}, {part}: {{{policies}}}}}"));
        assert_eq!(read(&old).to[0].hash_policies.as_ref().map(Vec::len), Some(1));
        let new = old.replace("name: backend", "labels: {a: b}");
        let field = format!("loadBalancer.{part}.hashPolicies");
        assert_eq!(of_default(&new, &KUMA_3), [field]);
        let both = doing(&format!(
            "{{loadBalancer: {{type: {kind}, {part}: {{{policies}}}}}, {policies}}}"
        ));
        assert_eq!(of_default(&both, &LENIENT), ["hashPolicies"]);
    }
    let unused = doing(&format!("{{loadBalancer: {{type: Random}}, {policies}}}"));
    assert_eq!(remarks(&unused), [format!("{DEFAULT}.hashPolicies")]);
}

#[test]
fn a_mesh_http_route_has_hash_policies_only() {
    let of = |default: &str| {
        to(&format!("{{targetRef: {{kind: MeshHTTPRoute, name: r}}, default: {default}}}"))
    };
    assert_eq!(
        of_default(&of("{loadBalancer: {type: Random}, localityAwareness: {}}"), &LENIENT),
        ["loadBalancer", "localityAwareness"]
    );
    assert_eq!(of_default(&of("{hashPolicies: []}"), &LENIENT), [""; 0]);
}

#[test]
fn what_is_wrong_with_locality_is_said_at_its_field() {
    let failover = |rule: &str| format!("{{crossZone: {{failover: [{rule}]}}}}");
    let cases: &[(&str, &[&str])] = &[
        ("{disabled: 1}", &["disabled"]),
        ("{localZones: {}}", &["localZones"]),
        ("{localZone: {affinityTags: [{}]}}", &["localZone.affinityTags[0].key"]),
        ("{localZone: {affinityTags: [{key: ''}]}}", &["localZone.affinityTags[0].key"]),
        (
            "{localZone: {affinityTags: [{key: a, weight: 0}]}}",
            &["localZone.affinityTags[0].weight"],
        ),
        (
            "{localZone: {affinityTags: [{key: a, weight: 1}, {key: b}]}}",
            &["localZone.affinityTags"],
        ),
        (&failover("{}"), &["crossZone.failover[0].to"]),
        (&failover("{to: {}}"), &["crossZone.failover[0].to.type"]),
        (&failover("{to: {type: All}}"), &["crossZone.failover[0].to.type"]),
        (&failover("{to: {type: Any, zones: [a]}}"), &["crossZone.failover[0].to.zones"]),
        (&failover("{to: {type: None, zones: [a]}}"), &["crossZone.failover[0].to.zones"]),
        (&failover("{to: {type: Only}}"), &["crossZone.failover[0].to.zones"]),
        (&failover("{to: {type: AnyExcept, zones: []}}"), &["crossZone.failover[0].to.zones"]),
        (&failover("{to: {type: Any}, from: {zones: []}}"), &["crossZone.failover[0].from.zones"]),
        (&failover("{to: {type: Any}, from: {}}"), &["crossZone.failover[0].from.zones"]),
        (
            &failover("{to: {type: Any}, from: {zones: ['']}}"),
            &["crossZone.failover[0].from.zones[0]"],
        ),
        (
            "{crossZone: {failoverThreshold: {percentage: 0}}}",
            &["crossZone.failoverThreshold.percentage"],
        ),
        (
            "{crossZone: {failoverThreshold: {percentage: '100.5'}}}",
            &["crossZone.failoverThreshold.percentage"],
        ),
        ("{crossZone: {failoverThreshold: {}}}", &["crossZone.failoverThreshold.percentage"]),
        ("{crossZone: {failoverThreshold: {percentage: '99.9'}}}", &[]),
    ];
    for (locality, fields) in cases {
        for options in WITH_TAGS {
            let found = of_default(&local(locality), options);
            let found: Vec<_> =
                found.iter().map(|f| f.strip_prefix("localityAwareness.").unwrap_or(f)).collect();
            assert_eq!(found, *fields, "{locality} {:?}", options.api);
        }
    }
}

#[test]
fn only_services_of_several_zones_fail_over() {
    let of = |target: &str| {
        to(&format!(
            "{{targetRef: {target}, default: {{localityAwareness: {{crossZone: {{failover: []}}}}}}}}"
        ))
    };
    let cross: &[&str] = &["localityAwareness.crossZone"];
    for (target, old, new) in [
        ("{kind: MeshService, labels: {a: b}}", cross, cross),
        ("{kind: Mesh}", &[], cross),
        ("{kind: MeshMultiZoneService, labels: {a: b}}", &[], &[]),
    ] {
        assert_eq!(of_default(&of(target), &LENIENT), old, "{target}");
        assert_eq!(of_default(&of(target), &KUMA_3), new, "{target}");
    }
    let section = of("{kind: MeshService, name: a, sectionName: b}");
    assert_eq!(of_default(&section, &KUMA_29), cross);
}

#[test]
fn what_is_surely_not_meant_is_a_warning() {
    let cases = [
        (policy_of("{targetRef: {kind: Mesh}, to: []}"), "spec.to"),
        (doing("{}"), DEFAULT),
        (to("{targetRef: {kind: Mesh}}"), "spec.to[0]"),
        (local("{localZone: {}}"), "spec.to[0].default.localityAwareness.localZone"),
        (balancing("{type: Random, maglev: {}}"), "spec.to[0].default.loadBalancer.maglev"),
        (
            hashing("[{type: Header, header: {name: a}, cookie: {name: b}}]"),
            "spec.to[0].default.hashPolicies[0].cookie",
        ),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{body}");
        assert_eq!(remarks(&body), [field], "{body}");
    }
    let shadow = doing("{}").replace("spec:", "labels: {kuma.io/effect: shadow}\nspec:");
    let set = reading(&shadow, &LENIENT).set;
    assert_eq!(set.shadowed_mesh_load_balancing_strategies.len(), 1);
    assert!(set.mesh_load_balancing_strategies.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_a_strategy(body in nearly(vec![
        doing("{loadBalancer: {type: RingHash, ringHash: {hashFunction: XXHash, minRingSize: 1024}}, hashPolicies: [{type: Cookie, cookie: {name: sid, ttl: 1h, path: /}, terminal: true}]}"),
        local("{localZone: {affinityTags: [{key: a, weight: 9}]}, crossZone: {failover: [{from: {zones: [a]}, to: {type: Only, zones: [b]}}], failoverThreshold: {percentage: '70'}}}"),
    ])) {
        holds(&body)?;
    }
}
