//! `balancer plan`: what a load would change, said and not done.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use harness::{Connection, EchoServer, root_or_skip};
use serde_json::Value;

use crate::{
    run::{Ended, balancer_in},
    world::{ATTACH, DATAPLANES, World, route, topology},
};

/// Two sets of files, `old` and `new`, that differ in the weights of a route.
fn two_sets() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, route) in [("old", route(90, 10)), ("new", route(80, 20))] {
        let set = dir.path().join(name);
        fs::create_dir(&set).expect("a directory");
        fs::write(set.join("world.yaml"), DATAPLANES).expect("a file");
        fs::write(set.join("route.yaml"), route).expect("a file");
    }
    dir
}

fn plan(dir: &Path, args: &[&str]) -> Ended {
    let state = dir.join("state");
    let state = state.to_str().expect("a UTF-8 path");
    let args: Vec<&str> = ["plan"].iter().chain(args).copied().chain(["--state", state]).collect();
    balancer_in(dir, &args, Stdio::null())
}

const TRANSCRIPT: &str = "\
compared with old

~ route to VIP (service redis) from default/web-1
  BACKEND            WEIGHT   SHARE            STATE
  redis version=1.0  90 → 80  0.9004 → 0.8008  ok
    10.0.0.21:6379            0.9004 → 0.8008
  redis version=2.0  10 → 20  0.0996 → 0.1992  ok
    10.0.0.22:6379            0.0996 → 0.1992
  25 of 251 slots move (10.0 %); the shares ask for 10.0 % at least

unchanged: 2 routes

SETTING             OF               NEEDED    LIMIT  KIB NEEDED  KIB AT LIMIT
limits.services     VIPs                  2    16384";

#[test]
fn two_sets_of_files_are_compared_without_a_privilege() {
    let dir = two_sets();
    let ended = plan(dir.path(), &["-f", "new", "--against", "old"]).exits(0);
    let vip = ended.stdout.split("route to ").nth(1).and_then(|rest| rest.split(' ').next());
    let vip: SocketAddr = vip.expect("a VIP").parse().expect("an address");
    let text = ended.stdout.replace(&vip.to_string(), "VIP");
    assert!(text.starts_with(TRANSCRIPT), "{ended}\nshould begin with\n{TRANSCRIPT}");

    let json = plan(dir.path(), &["-f", "new", "--against", "old", "-o", "json"]).exits(0);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    // Not `exits(0)`: it takes the field `kind` for Rust's way to print an error.
    let yaml = plan(dir.path(), &["-f", "new", "--against", "old", "-o", "yaml"]);
    assert_eq!(yaml.code, Some(0), "{yaml}");
    let yaml: Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(json, yaml);
    assert_eq!(json["against"]["files"][0], "old");
    let moved = &json["routes"][0]["moved"];
    assert_eq!((&moved["slots"], &moved["by_hash"]), (&25.into(), &true.into()), "{json:#}");
    assert!(json["flows"].is_null() && json["findings"] == serde_json::json!([]), "{json:#}");
    assert!(!dir.path().join("state").exists(), "a plan writes nothing");
}

#[test]
fn plan_of_what_is_there_says_that_nothing_changes() {
    let dir = two_sets();
    plan(dir.path(), &["-f", "old", "--against", "old"])
        .exits(0)
        .prints(&["no changes: 3 routes stay as they are"]);
}

#[test]
fn policies_that_check_refuses_are_refused_alike() {
    let dir = two_sets();
    let bad = route(90, 10).replace("weight: 90", "weight: -1");
    fs::write(dir.path().join("new/route.yaml"), bad).expect("a file");
    let check = balancer_in(dir.path(), &["check", "-f", "new"], Stdio::null()).exits(1);
    let planned = plan(dir.path(), &["-f", "new", "--against", "old"]).exits(1);
    assert_eq!((planned.stdout, planned.stderr), (check.stdout, check.stderr));
    // The other way round the fault is the old set's, and that is said.
    plan(dir.path(), &["-f", "old", "--against", "new"]).exits(1).says(&[
        "--against",
        "new/route.yaml",
        "1 error",
    ]);
    plan(dir.path(), &["-f", "old", "--against", "nowhere"]).exits(1).says(&["nowhere"]);
    let json = plan(dir.path(), &["-f", "new", "--against", "old", "-o", "json"]).exits(1);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["valid"], false);
}

#[test]
fn findings_that_are_new_are_listed_and_old_ones_are_not() {
    let dir = two_sets();
    let warned = route(90, 10).replace("conf:\n", "conf:\n  colour: blue\n");
    fs::write(dir.path().join("new/route.yaml"), &warned).expect("a file");
    let planned = plan(dir.path(), &["-f", "new", "--against", "old"]).exits(0);
    let planned = planned.prints(&["no changes", "new findings:", "new/route.yaml:", "colour"]);
    assert!(!planned.stdout.contains("world.yaml:"), "{planned}");
    fs::write(dir.path().join("old/route.yaml"), &warned).expect("a file");
    let same = plan(dir.path(), &["-f", "new", "--against", "old"]).exits(0);
    assert!(!same.stdout.contains("findings"), "{same}");
}

#[test]
fn limits_that_are_too_small_are_refused_with_the_setting_that_would_do() {
    let dir = two_sets();
    fs::write(dir.path().join("small.yaml"), "limits: {reals: 1}\n").expect("a file");
    plan(dir.path(), &["-f", "new", "--against", "old", "--config", "small.yaml"])
        .exits(1)
        .says(&["3 reals, but limits.reals is 1", "hint: "]);
}

#[test]
fn plan_against_what_is_live_counts_its_flows_and_changes_nothing() {
    let Some(root) = root_or_skip("plan against what is live") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    let policies = world.policies().to_owned();
    let plan = |form: &[&str]| {
        let args: Vec<&str> = ["plan", "-f", &policies].iter().chain(form).copied().collect();
        world.run(&args).exits(0)
    };
    plan(&[]).prints(&["compared with nothing: nothing is loaded at", "+ VIP "]);

    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let config = elsewhere.path().join("config.yaml");
    let config = config.to_str().expect("a UTF-8 path").to_owned();
    let sizes = |text: &str| fs::write(&config, text).expect("a file");
    sizes("limits: {reals: 4}\n");
    world.load(&[&ATTACH[..], &["--config", &config]].concat()).exits(0);
    plan(&[]).prints(&["compared with what is live (epoch 1)", "no changes", "live flows: 0 kept"]);

    let vips = world.json(&["show", "vips"]);
    let row = vips.as_array().expect("a list").iter().find(|row| row["service"] == "redis");
    let vip = row.and_then(|row| row["vip"].as_str()).expect("a VIP of redis");
    let vip: SocketAddr = vip.parse().expect("an address");
    let _servers: Vec<EchoServer> = ["redis-1", "redis-2"]
        .into_iter()
        .map(|name| {
            let host = topology.host(name);
            let address = SocketAddr::new(host.addresses[0], 6379);
            EchoServer::start(&host.ns, address, name).expect("a server")
        })
        .collect();
    let web = &topology.host("web-1").ns;
    let mut connections: Vec<Connection> = (0..40)
        .map(|n| {
            let client = SocketAddr::from(([10, 0, 0, 11], 40_001 + n));
            web.run(|| Connection::open(client, vip)).expect("a connection through the VIP")
        })
        .collect();
    let on_second =
        connections.iter().filter(|connection| connection.greeting.name == "redis-2").count();
    let on_second = u64::try_from(on_second).expect("a small number");

    let live = world.snapshot();

    // Out of the policy: its connections would drain.
    world.write("route.yaml", &route(100, 0));
    let json = world.json(&["plan", "-f", &policies]);
    let route_of_web = json["routes"].as_array().expect("a list").iter().find(|route| {
        route["from"] == serde_json::json!(["default/web-1"]) && route["service"] == "redis"
    });
    let fates = &route_of_web.expect("web's route to redis")["flows"];
    assert_eq!(fates["draining"], on_second, "{json:#}");
    assert_eq!(fates["kept"], 40 - on_second, "{json:#}");
    assert_eq!(fates["gone"], 0, "{json:#}");

    // Out of the inventory: its connections would end.
    let without = DATAPLANES.replace("10.0.0.22", "10.0.0.23");
    world.write("world.yaml", &without);
    let ended = plan(&[]);
    let ended = ended.prints(&["10.0.0.23:6379", "reset after 5 s"]);
    let gone = format!("live flows: {} kept, 0 draining, {on_second} on a real", 40 - on_second);
    assert!(on_second == 0 || ended.stdout.contains(&gone), "{ended}\nshould say {gone}");

    // What the pinned maps cannot hold is refused as `load` would refuse it.
    let many: String = (0..2)
        .map(|n| {
            format!(
                "---\ntype: Dataplane\nmesh: default\nname: more-{n}\nnetworking:\n  address: \
                 10.0.1.{n}\n  inbound:\n  - {{port: 80, tags: {{kuma.io/service: more}}}}\n"
            )
        })
        .collect();
    world.write("more.yaml", &many);
    world.run(&["plan", "-f", &policies]).exits(1).says(&[
        "reals",
        "but limits.reals is 4",
        "balancer unload",
    ]);
    sizes("limits: {reals: 12}\n");
    world
        .run(&["plan", "-f", &policies, "--config", &config])
        .exits(2)
        .says(&["limits.reals is 12, pinned with 4"]);

    world.is_still(&live);
    for connection in &mut connections {
        connection.talk("still there").expect("a plan breaks no connection");
    }
}
