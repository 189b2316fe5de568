use std::{collections::BTreeSet, time::Instant};

use super::*;
use crate::{
    compile::CounterRun,
    metrics::{
        ledger::{Roll, Run},
        state::Outcome,
    },
};

fn name(service: &str, source_class: &str) -> Name {
    Name {
        mesh: "default".into(),
        service: service.into(),
        vip: "240.0.0.1:6379".into(),
        source_class: source_class.into(),
        backend: service.into(),
        tags: "version=1".into(),
    }
}

/// A page with every family.
fn page(names: Vec<Name>) -> String {
    let mut ledger = Ledger::new(2);
    let now = Instant::now();
    let run = CounterRun { first: 1, count: names.len() as u32, backends: 0 };
    let mut roll = Roll::default();
    ledger.apply(roll.call([Run { route: 1, run, fingerprint: 0, names: || names }]), now);
    let counter =
        Counter { connections: 3, packets_in: 4, bytes_in: 5, packets_out: 6, bytes_out: 7 };
    ledger.read(&[counter; 9], now);
    let mut publishes = Publishes::none().unwrap();
    let ms = Duration::from_millis;
    publishes.add(Outcome::Changed { change: Some(ms(30)), flip: ms(3), grace: ms(8) });
    publishes.add(Outcome::Failed);
    let maps = Maps {
        epoch: 7,
        reasons: Reason::ALL.iter().map(|reason| (*reason, 1)).collect(),
        fill: vec![MapFill { name: "VIPS", used: 2, capacity: 9, setting: "limits.services" }],
        new_flows_limit: 5000,
        tables: BTreeMap::from([(251, 4), (1000, 1)]),
        established: 12,
        took: ms(2),
    };
    let health = Health {
        invalid_since: Some(90.5),
        refused: 2,
        links_wanted: 4,
        links_attached: 2,
        proxy: Some(Proxied {
            refused: vec![("idle", 3), ("flood", 0)],
            connections: 20,
            requests: 21,
            reals_used: 22,
            reals_idle: 23,
        }),
        ..Health::default()
    };
    text(&Shown {
        ledger: &ledger,
        limit: 2,
        maps: Some(&maps),
        health: &health,
        publishes: &publishes,
        started: 1.0,
    })
    .unwrap()
}

#[test]
fn page_has_every_family_and_nothing_else() {
    let text = page(vec![name("redis", "everybody")]);
    let typed: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let kind = |family: &Family| match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let families: Vec<(&str, &str)> =
        families::ALL.iter().map(|family| (family.name, kind(family))).collect();
    assert_eq!(typed, families);
}

#[test]
fn page_says_what_was_counted() {
    let text = page(vec![name("redis", "default/web")]);
    let of = "mesh=\"default\",service=\"redis\",vip=\"240.0.0.1:6379\",\
              source_class=\"default/web\",backend=\"redis\",tags=\"version=1\"";
    for line in [
        format!("balancer_connections_total{{{of}}} 3"),
        format!("balancer_packets_total{{{of},direction=\"in\"}} 4"),
        format!("balancer_packets_total{{{of},direction=\"out\"}} 6"),
        format!("balancer_bytes_total{{{of},direction=\"in\"}} 5"),
        format!("balancer_bytes_total{{{of},direction=\"out\"}} 7"),
        "balancer_reason_packets_total{reason=\"new_flow\",fate=\"forward\"} 1".into(),
        "balancer_publishes_total{outcome=\"changed\"} 1".into(),
        "balancer_publishes_total{outcome=\"failed\"} 1".into(),
        "balancer_publishes_total{outcome=\"refused\"} 2".into(),
        "balancer_publish_flip_seconds_bucket{le=\"0.002\"} 0".into(),
        "balancer_publish_flip_seconds_bucket{le=\"0.005\"} 1".into(),
        "balancer_map_used{map=\"VIPS\",setting=\"limits.services\"} 2".into(),
        "balancer_map_capacity{map=\"VIPS\",setting=\"limits.services\"} 9".into(),
        "balancer_new_flows_limit 5000".into(),
        "balancer_tables{slots=\"251\"} 4".into(),
        "balancer_tables{slots=\"other\"} 1".into(),
        "balancer_established_connections 12".into(),
        "balancer_epoch 7".into(),
        "balancer_set_valid 0".into(),
        "balancer_set_invalid_since_timestamp_seconds 90.5".into(),
        "balancer_links{state=\"wanted\"} 4".into(),
        "balancer_proxy_refused_total{cause=\"idle\"} 3".into(),
        "balancer_proxy_refused_total{cause=\"flood\"} 0".into(),
        "balancer_proxy_connections 20".into(),
        "balancer_proxy_requests 21".into(),
        "balancer_proxy_real_connections{state=\"used\"} 22".into(),
        "balancer_proxy_real_connections{state=\"idle\"} 23".into(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn names_of_policies_are_escaped() {
    let text = page(vec![name("a\"b\\c\nd", "x")]);
    assert!(text.contains("service=\"a\\\"b\\\\c\\nd\","), "{text}");
    assert!(text.lines().all(|line| !line.starts_with("d\"")), "{text}");
}

#[test]
fn what_is_beyond_the_limit_is_in_one_series_and_its_number_is_said() {
    let names: Vec<Name> = ["a", "b", "c", "d"].map(|service| name(service, "x")).into();
    let text = page(names);
    let other = "mesh=\"other\",service=\"other\",vip=\"other\",source_class=\"other\",\
                 backend=\"other\",tags=\"other\"";
    for line in [
        format!("balancer_connections_total{{{other}}} 6"),
        format!("balancer_bytes_total{{{other},direction=\"out\"}} 14"),
        "balancer_backends 2".into(),
        "balancer_backends_merged 2".into(),
        "balancer_backends_limit 2".into(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn every_label_is_explained_and_every_explained_label_is_used() {
    let used: BTreeSet<&str> =
        families::ALL.iter().flat_map(|family| family.labels).copied().chain(["le"]).collect();
    let explained: BTreeSet<&str> = families::LABELS.iter().map(|(label, _)| *label).collect();
    assert_eq!(used, explained);
}
