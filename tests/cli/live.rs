//! Loading, looking at what is live, and unloading, with a real connection in between.

use std::net::SocketAddr;

use harness::{Connection, EchoServer, root_or_skip};

use crate::{
    run::Ended,
    world::{ATTACH, World, route, topology},
};

const VERBS: [&str; 9] =
    ["vips", "sources", "routes", "backends", "reals", "tables", "flows", "counters", "reasons"];

/// The VIP of service redis.
fn vip(world: &World<'_>) -> SocketAddr {
    let vips = world.json(&["show", "vips"]);
    let row = vips.as_array().expect("a list").iter().find(|row| row["service"] == "redis");
    row.and_then(|row| row["vip"].as_str()).expect("a VIP of redis").parse().expect("an address")
}

#[test]
fn load_show_explain_unload_round_trip() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);

    world.run(&["status"]).exits(0).prints(&["nothing is loaded at"]);
    assert_eq!(world.json(&["status"])["loaded"], false);
    world.run(&["show", "vips"]).exits(3).says(&["nothing is loaded", "balancer load -f PATH"]);

    world.load(&ATTACH).exits(0).prints(&["epoch 1 is live", "attached: v-web-1 ingress"]);
    let status = world.json(&["status"]);
    assert_eq!((&status["loaded"], &status["epoch"]), (&true.into(), &1.into()), "{status:#}");
    assert_eq!(status["links"].as_array().map(Vec::len), Some(6), "{status:#}");

    // Ask the program, then do it: the same port must meet the same real.
    let vip = vip(&world);
    let servers: Vec<EchoServer> = ["redis-1", "redis-2"]
        .into_iter()
        .map(|name| {
            let host = topology.host(name);
            let address = SocketAddr::new(host.addresses[0], 6379);
            EchoServer::start(&host.ns, address, name).expect("a server")
        })
        .collect();
    let client: SocketAddr = "10.0.0.11:40001".parse().expect("an address");
    let tuple = format!("{client},{vip}");
    let asked = world.json(&["explain", "--tuple", &tuple]);
    assert_eq!((&asked["service"], &asked["reason"]), (&"redis".into(), &"new_flow".into()));
    assert_eq!(world.json(&["show", "flows"]), serde_json::json!([]), "asking left a trace");
    let web = &topology.host("web-1").ns;
    let mut connection =
        web.run(|| Connection::open(client, vip)).expect("a connection through the VIP");
    let met = servers
        .iter()
        .zip(["redis-1", "redis-2"])
        .find(|(_, name)| *name == connection.greeting.name)
        .map(|(server, _)| server.address().to_string());
    assert_eq!(asked["sent_to"].as_str().map(str::to_owned), met);

    let flows = world.json(&["show", "flows"]);
    let flow = &flows[0];
    assert_eq!(flow["client"], client.to_string(), "{flows:#}");
    assert_eq!(flow["vip"], vip.to_string());
    assert_eq!(flow["real"].as_str().map(str::to_owned), met);
    assert_eq!(flow["state"], "established");
    let counters = world.json(&["show", "counters"]);
    let total: u64 = counters
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["connections"].as_u64())
        .sum();
    assert_eq!(total, 1, "{counters:#}");

    shows_every_form(&world);
    explains(&world);

    // New weights; the connection stays where it is.
    world.write("route.yaml", &route(50, 50));
    world.load(&[]).exits(0).prints(&["epoch 2 is live", "changed:"]);
    connection.talk("still there").expect("the connection outlives the change");
    let backends = world.json(&["show", "backends"]);
    let share = |version: &str| {
        backends
            .as_array()
            .expect("a list")
            .iter()
            .find(|row| row["tags"]["version"] == version && row["class"] != 0)
            .and_then(|row| row["share"].as_f64())
            .expect("a share")
    };
    assert!((share("1.0") - 0.5).abs() < 0.01, "{backends:#}");
    connection.close().expect("the connection closes");

    // A load of what is live changes nothing and says so.
    let before = world.snapshot();
    world.load(&[]).exits(0).prints(&["changed: nothing"]);
    let mut after = world.snapshot();
    after.insert("epoch", before["epoch"].clone());
    assert_eq!(after, before);

    world.run(&["unload"]).exits(0).prints(&["detached: v-web-1", "removed: 7 programs"]);
    world.run(&["status"]).exits(0).prints(&["nothing is loaded at"]);
    world.run(&["unload"]).exits(0).prints(&["nothing is loaded at"]);
    let left: Vec<String> = std::fs::read_dir(world.instance.state())
        .expect("the state directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "texts")
        .collect();
    assert_eq!(left, ["vips.json"]);
    world.load(&[]).exits(0).prints(&["epoch 1 is live"]);
    assert_eq!(self::vip(&world), vip, "the service has another VIP after unload");
    world.run(&["unload"]).exits(0);
}

fn shows_every_form(world: &World<'_>) {
    for verb in VERBS {
        let text = world.run(&["show", verb]).exits(0);
        assert!(text.stdout.lines().count() > 1, "{text}");
        let json = world.run(&["show", verb, "-o", "json"]).exits(0);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        let yaml = world.run(&["show", verb, "-o", "yaml"]).exits(0);
        let yaml: serde_json::Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
        let fields = |rows: &serde_json::Value| {
            let first = rows[0].as_object().expect("rows are objects");
            first.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(fields(&json), fields(&yaml), "{verb}");
        // The heads of the table are the names of the fields.
        let heads = text.stdout.lines().next().expect("a head");
        for field in fields(&json) {
            assert!(heads.contains(&field.to_uppercase().replace('_', " ")), "{verb}: {heads}");
        }
        if verb == "vips" {
            let hosts = world.run(&["show", verb, "-o", "hosts"]).exits(0);
            let line = format!("{}\tredis redis.default\n", vip(world).ip());
            assert!(hosts.stdout.contains(&line), "{hosts}");
        } else {
            world.run(&["show", verb, "-o", "hosts"]).exits(2).says(&["show vips -o hosts"]);
        }
    }
    let backends = world.run(&["show", "backends"]);
    assert!(backends.stdout.contains("version=1.0"), "{backends}");
}

fn explains(world: &World<'_>) {
    let check = |answer: &serde_json::Value| {
        assert_eq!(answer["decision"], "forward", "{answer:#}");
        assert_eq!(answer["policy"]["name"], "redis-canary");
        assert_eq!(answer["load_balancer"]["type"], "maglev");
        let shares: Vec<f64> = answer["backends"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|backend| backend["share"].as_f64())
            .collect();
        assert_eq!(shares.len(), 2);
        assert!((shares[0] - 0.9).abs() < 0.01 && (shares[1] - 0.1).abs() < 0.01, "{shares:?}");
    };
    let live = world.json(&["explain", "--from", "web-1", "--to", "redis"]);
    check(&live);
    let files = ["explain", "-f", world.policies(), "--from", "10.0.0.11", "--to", "redis:6379"];
    check(&world.json(&files));
    let text = world.run(&["explain", "--from", "web-1", "--to", "redis"]).exits(0);
    for part in ["redis-canary", "maglev", "version=1.0", "0.9", "because"] {
        assert!(text.stdout.contains(part), "no `{part}`: {text}");
    }
    world.run(&["explain", "--from", "web-2", "--to", "redis"]).exits(2).says(&["web-2", "web-1"]);
    let unknown: Ended =
        world.run(&["explain", "--tuple", "10.0.0.11:40002,192.0.2.1:6379"]).exits(0);
    assert!(unknown.stdout.contains("unknown_destination"), "{unknown}");
}

/// `| head` closes the pipe while there is more to write.
#[test]
fn reader_that_goes_away_is_no_error() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    // More rows than a pipe holds.
    let mut many = String::from("type: Mesh\nname: default\n");
    for at in 0..1500 {
        many += &format!(
            "---\ntype: Dataplane\nmesh: default\nname: dp-{at}\nnetworking:\n  \
             address: 10.9.{}.{}\n  inbound:\n  - {{port: 80, tags: {{kuma.io/service: s-{at}}}}}\n",
            at / 250,
            at % 250 + 1
        );
    }
    world.write("world.yaml", &many);
    std::fs::remove_file(world.files.path().join("route.yaml")).expect("the file is there");
    world.load(&[]).exits(0);
    let mut child = world
        .instance
        .command(&["show", "vips", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("balancer can be started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    Ended::new("balancer show vips -o json | true".to_owned(), output).exits(0);
}

#[test]
fn status_says_to_which_reals_there_is_no_route() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.load(&ATTACH).exits(0);
    let findings = || world.json(&["status"])["findings"].to_string();
    assert!(!findings().contains("no route"), "{}", findings());
    let lost = topology.host("redis-2").addresses[0];
    topology.node.ip(&[format!("route del {lost}")]).expect("there was a route");
    let expected = format!("no route to 1 of 3 addresses of reals, to {lost} for one");
    assert!(findings().contains(&expected), "{}", findings());
    topology.node.ip(&[format!("route add blackhole {lost}")]).expect("a route");
    assert!(findings().contains(&expected), "a route that leads nowhere is none");
}
