//! `balancer maps` on a live load with a connection.

use std::{collections::BTreeMap, net::SocketAddr};

use harness::{Connection, EchoServer, root_or_skip};
use serde_json::{Value, json};

use crate::{
    run::balancer,
    world::{ATTACH, World, topology},
};

/// Every map, in the order of `maps list`.
const MAPS: [&str; 37] = [
    "EPOCH",
    "SETTINGS",
    "PORTS",
    "REPLY_PORTS",
    "INTERFACES",
    "VIP_IDS4",
    "VIP_IDS6",
    "VIP_ADDRESSES4",
    "VIP_ADDRESSES6",
    "SOURCE_IDS4",
    "SOURCE_IDS6",
    "CLASS_ROUTES",
    "VIPS",
    "SOURCES",
    "ROUTES",
    "ARENA",
    "REALS",
    "FLOWS4",
    "FLOWS6",
    "HALF_OPEN4",
    "HALF_OPEN6",
    "FRAGMENTS",
    "ACTIVE",
    "TURNS",
    "NEW_FLOWS",
    "COUNTERS",
    "REASONS",
    "EVENTS",
    "TRACE",
    "TRACED",
    "DEVICES",
    "SNAT",
    "SCRATCH",
    "HOPS",
    "NEXT_HOPS",
    "HOP_IDS",
    "PROXY_LISTENERS",
];

fn rows(value: Value) -> Vec<Value> {
    value.as_array().expect("a list of rows").clone()
}

fn dump(world: &World<'_>, map: &str) -> Vec<Value> {
    rows(world.json(&["maps", "dump", map]))
}

fn lookup(world: &World<'_>, map: &str, key: &Value) -> Value {
    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    let args: Vec<&str> = ["maps", "lookup", map].into_iter().chain(key.split(' ')).collect();
    let found = rows(world.json(&args));
    assert_eq!(found.len(), 1, "{map} {key}: {found:?}");
    found[0].clone()
}

#[test]
fn maps_hold_what_was_loaded_and_the_connection() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.run(&["maps", "list"]).exits(3).says(&["nothing is loaded", "balancer load -f PATH"]);
    world.load(&ATTACH).exits(0);

    let servers: Vec<EchoServer> = ["redis-1", "redis-2"]
        .into_iter()
        .map(|name| {
            let host = topology.host(name);
            let address = SocketAddr::new(host.addresses[0], 6379);
            EchoServer::start(&host.ns, address, name).expect("a server")
        })
        .collect();
    let vips = rows(world.json(&["show", "vips"]));
    let redis = vips.iter().find(|row| row["service"] == "redis").expect("a VIP of redis");
    let vip = redis["vip"].as_str().expect("an address");
    let client: SocketAddr = "10.0.0.11:40001".parse().expect("an address");
    let mut connection = topology
        .host("web-1")
        .ns
        .run(|| Connection::open(client, vip.parse().expect("an address")))
        .expect("a connection through the VIP");
    connection.talk("hello").expect("an echo");

    let before = world.snapshot();
    lists(&world, vips.len() as u64);
    follows_the_packet(&world, vip, client, &servers);
    prints_and_finds_every_map(&world);
    refuses(&world);
    world.is_still(&before);
    connection.close().expect("the connection closes");
    world.run(&["unload"]).exits(0);
}

fn lists(world: &World<'_>, vips: u64) {
    let list = rows(world.json(&["maps", "list"]));
    let names: Vec<&str> = list.iter().filter_map(|row| row["map"].as_str()).collect();
    assert_eq!(names, MAPS);
    let by_name: BTreeMap<&str, &Value> = names.iter().copied().zip(&list).collect();
    for (name, row) in &by_name {
        let number = |field: &str| row[field].as_u64().expect("a number");
        assert!(number("used") <= number("capacity"), "{row}");
        // Of a per-CPU array the value is one CPU's; all maps hold at least their values.
        let least = number("value_size") * number("capacity");
        let preallocated = row["type"] != "hash";
        assert!(number("memory") >= if preallocated { least } else { 1 }, "{name}: {row}");
    }
    assert_eq!(by_name["VIP_IDS4"]["used"], vips);
    assert_eq!(
        (&by_name["VIP_IDS4"]["type"], &by_name["VIP_IDS4"]["key_size"]),
        (&json!("hash"), &json!(8))
    );
    // The forward and the reply entry of the one connection.
    assert_eq!(
        (&by_name["FLOWS4"]["used"], &by_name["FLOWS4"]["type"]),
        (&json!(2), &json!("lru_hash"))
    );
    assert_eq!(by_name["FLOWS4"]["setting"], "limits.flows");
    assert_eq!(by_name["EPOCH"]["setting"], Value::Null);
    assert_eq!(
        (&by_name["COUNTERS"]["type"], &by_name["ARENA"]["type"]),
        (&json!("percpu_array"), &json!("array_of_maps"))
    );
    // A chunk of the arena is 128 KiB, whatever the outer map takes.
    let arena = by_name["ARENA"];
    let chunks = arena["used"].as_u64().expect("a number");
    assert!(chunks >= 1 && arena["memory"].as_u64() >= Some(chunks * 128 * 1024), "{arena}");
}

/// Goes by hand where the program goes: address → VIP → class → route → real → flow.
fn follows_the_packet(world: &World<'_>, vip: &str, client: SocketAddr, servers: &[EchoServer]) {
    let epoch = &dump(world, "EPOCH")[0];
    assert_eq!((&epoch["epoch"], &epoch["half"]), (&json!(1), &json!(1)));
    let vip_id = &lookup(world, "VIP_IDS4", &json!(vip))["vip"];
    let source_id = &lookup(world, "SOURCE_IDS4", &json!(client.ip().to_string()))["source"];
    let current = |map: &str, id: &Value| {
        let found: Vec<Value> = dump(world, map)
            .into_iter()
            .filter(|row| row["id"] == *id && row["half"] == "current")
            .collect();
        assert_eq!(found.len(), 1, "{map} {id}: {found:?}");
        found[0].clone()
    };
    let vip_entry = current("VIPS", vip_id);
    let class = current("SOURCES", source_id)["class"].clone();
    assert_eq!(vip_entry["flags"], json!([]), "web has a route of its own: {vip_entry}");
    let own = lookup(world, "CLASS_ROUTES", &json!(format!("{class}/{vip_id}")));
    let route = current("ROUTES", &own["route"]);
    assert_eq!((&route["kind"], &route["pick"]), (&json!("table"), &json!("hash")), "{route}");
    assert_eq!(route["table"]["backends"], 2, "{route}");
    // The second half of the array begins in its middle.
    let key = route["key"].as_u64().expect("an index");
    let half = rows(world.json(&["maps", "dump", "ROUTES", "--all"])).len() as u64 / 2;
    assert_eq!(key, half + own["route"].as_u64().expect("an id"));

    let forward = lookup(world, "FLOWS4", &json!(format!("forward {client} {vip}")));
    assert_eq!(forward["state"], json!(["syn_ack", "established"]), "{forward}");
    let real = lookup(world, "REALS", &forward["real"]);
    let address = real["address"].as_str().expect("an address");
    assert!(servers.iter().any(|server| server.address().to_string() == address), "{real}");
    assert_eq!(real["generation"], forward["generation"]);
    let reply = lookup(world, "FLOWS4", &json!(format!("reply {address} {client}")));
    assert_eq!((&reply["vip"], &reply["real"]), (&json!(vip), &forward["real"]));
    assert_eq!(lookup(world, "ACTIVE", &forward["real"])["connections"], 1);
    assert_eq!(lookup(world, "COUNTERS", &forward["counter"])["connections"], 1);
    let ports = dump(world, "PORTS");
    let named = |field: &str| {
        ports.iter().any(|row| row[field].as_array().is_some_and(|p| p.contains(&json!(6379))))
    };
    assert!(named("vip_ports") && named("real_ports"), "{ports:?}");
    let reasons = dump(world, "REASONS");
    let new = reasons.iter().find(|row| row["reason"] == "new_flow").expect("one new flow");
    assert_eq!(new["packets"], 1, "{reasons:?}");
}

/// All forms say the same, and `lookup` takes what `dump` prints.
fn prints_and_finds_every_map(world: &World<'_>) {
    for map in MAPS {
        let json = dump(world, map);
        // Not `exits(0)`: it takes the field `kind` for Rust's way to print an error.
        let yaml = world.run(&["maps", "dump", map, "-o", "yaml"]);
        assert_eq!(yaml.code, Some(0), "{yaml}");
        let yaml: Vec<Value> = serde_yaml::from_str(&yaml.stdout).expect("YAML");
        let text = world.run(&["maps", "dump", map]).exits(0);
        assert_eq!(json.len(), yaml.len(), "{map}");
        // Time goes on, and the hosts of the test say things of their own (IPv6 discovery).
        let moving = ["FLOWS4", "REASONS"].contains(&map);
        if let Some(first) = json.first() {
            let fields: Vec<&String> = first.as_object().expect("an object").keys().collect();
            assert_eq!(fields[0], "key", "{map}");
            let heads = text.stdout.lines().next().expect("a head");
            for field in fields {
                assert!(heads.contains(&field.to_uppercase().replace('_', " ")), "{map}: {heads}");
            }
            assert_eq!(text.stdout.lines().count(), json.len() + 1, "{text}");
        } else {
            text.says(&["has no element in use"]);
        }
        for row in json.iter().take(2).chain(json.last()) {
            let found = lookup(world, map, &row["key"]);
            assert_eq!(found["key"], row["key"], "{map}");
            assert!(moving || found == *row, "{map}: {found} is not {row}");
        }
        assert!(moving || json == yaml, "{map}: {json:?} is not {yaml:?}");
    }
    let all = rows(world.json(&["maps", "dump", "VIPS", "--all"]));
    let halves = |half: &str| all.iter().filter(|row| row["half"] == half).count();
    assert_eq!((halves("current"), halves("other")), (all.len() / 2, all.len() / 2));
    assert!(dump(world, "VIPS").len() < all.len());
}

fn refuses(world: &World<'_>) {
    for (map, key) in [
        ("VIP_IDS4", "192.0.2.1:80"),
        ("SOURCE_IDS6", "fd00::99"),
        ("CLASS_ROUTES", "900/900"),
        ("REALS", "4000000000"),
        ("ARENA", "63"),
    ] {
        let ended = world.run(&["maps", "lookup", map, key]).exits(1);
        assert_eq!(ended.stdout, "", "{ended}");
        ended.says(&[map, key, &format!("balancer maps dump {map}")]);
    }
    // An empty element of an array is there.
    let unused = lookup(world, "REALS", &json!(60_000));
    assert_eq!(unused["address"], Value::Null);
    world.run(&["maps", "list", "-o", "hosts"]).exits(2).says(&["show vips -o hosts"]);
}

/// What is wrong with the words needs neither a load nor a privilege to be said.
#[test]
fn wrong_words_say_which_maps_and_keys_there_are() {
    balancer(&["maps", "dump", "REAL"]).exits(2).says(&[
        "`REAL`",
        "did you mean `REALS`",
        "FLOWS6",
    ]);
    balancer(&["maps", "lookup", "payments", "1"]).exits(2).says(&["there are: EPOCH, SETTINGS"]);
    balancer(&["maps", "lookup", "VIP_IDS4", "240.0.0.3"])
        .exits(2)
        .says(&["`240.0.0.3` is no key of VIP_IDS4", "ADDRESS:PORT"]);
    balancer(&["maps", "lookup", "ROUTES", "redis"]).exits(2).says(&["`redis`", "a number"]);
    balancer(&["maps", "lookup", "FLOWS4", "10.0.0.11:1", "10.0.0.12:2"])
        .exits(2)
        .says(&["forward|reply"]);
    balancer(&["maps", "lookup", "ROUTES"]).exits(2).says(&["<KEY>"]);
}
