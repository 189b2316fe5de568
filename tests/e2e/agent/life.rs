//! An agent that begins, ends, is killed and replaced, and what it tells the service manager.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use harness::{Agent, Connection, Feature, hooks, root_or_skip, scaled};
use nix::sys::signal::Signal;

use super::{
    links::attached,
    world::{World, replace, status},
};
use crate::bed::{VIP4, VIP6};

/// Packets forwarded so far.
fn counted(instance: &harness::Instance<'_>) -> u64 {
    let rows = instance.json(&["show", "reasons"]).expect("reasons");
    let rows = rows.as_array().expect("rows").clone();
    let forwarded = rows.iter().filter(|row| row["fate"] == "forward");
    forwarded.filter_map(|row| row["packets"].as_u64()).sum()
}

/// Tells the talker that it is over, also when the test panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn agents_that_come_and_go_break_no_connection_and_leave_one_program_on_each_hook() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let (live, rounds) = scaled((500, 20), (50, 6));
    let interface = world.bed.topology.host("web-1").interface.clone();
    let node = &world.bed.topology.node;
    let on_hook = || -> BTreeSet<u32> {
        node.run(|| hooks::programs(&interface)).expect("programs of the interface")
    };

    // Somebody else's program, there before us: that of another instance, which knows no VIP.
    let other = world.bed.instance();
    let elsewhere = world.home.path().join("elsewhere.yaml");
    fs::write(&elsewhere, "type: Mesh\nname: elsewhere\n").expect("write");
    let elsewhere = elsewhere.display().to_string();
    let config = world.config("");
    let small = config.display().to_string();
    other.balancer(&["load", "-f", &elsewhere, "--config", &small]).expect("load the other");
    let program = other.bpffs().join("progs/balancer_in");
    let mut theirs = SchedClassifier::from_pin(&program).expect("the other program");
    let foreign = theirs.info().expect("info").id();
    node.run(|| {
        if Feature::Tcx.is_here() {
            theirs.attach(&interface, TcAttachType::Ingress).expect("attach the other");
        } else {
            let line = format!(
                "tc filter add dev {interface} ingress pref 7 bpf da object-pinned {}",
                program.display()
            );
            let shell = harness::Shell::silent();
            shell.run(&format!("tc qdisc add dev {interface} clsact")).expect("a qdisc");
            shell.run(&line).expect("attach the other");
        }
    });

    let mut agent = Agent::start(&instance, &config, &[]).expect("the first agent");
    let programs = on_hook();
    assert_eq!(programs.len(), 3, "ours each way, and theirs: {programs:?}");
    assert!(programs.contains(&foreign), "{programs:?}");
    let mut connections: Vec<Connection> = (0..live)
        .map(|i| world.bed.open("web-1", if i % 2 == 0 { VIP4 } else { VIP6 }).expect("opens"))
        .collect();
    let mut last_count = counted(&instance);
    assert!(last_count >= live, "{last_count}");

    let done = AtomicBool::new(false);
    let (exchanges, agent) = thread::scope(|scope| {
        let over = Over(&done);
        let talker = scope.spawn(|| {
            let mut exchanges = 0u64;
            while !done.load(Ordering::Relaxed) {
                for connection in &mut connections {
                    let name = connection.talk("still there").expect("no connection breaks");
                    assert_eq!(name, connection.greeting.name, "no connection moves");
                    exchanges += 1;
                    thread::sleep(scaled(Duration::from_micros(200), Duration::from_millis(2)));
                }
            }
            exchanges
        });
        for round in 0..rounds {
            let versions = ["1.0", "2.0"];
            let version = versions[round % 2];
            match round % 3 {
                0 => agent.kill().expect("kill -9"),
                1 => _ = agent.stop().expect("an orderly end"),
                // Killed while it is at work.
                _ => {
                    world.route(version);
                    thread::sleep(Duration::from_millis(round as u64 * 3));
                    agent.kill().expect("kill -9");
                }
            }
            // Nobody is there: a change waits, and packets flow.
            world.route(version);
            agent = Agent::start(&instance, &config, &[]).expect("the next agent");
            agent.wait("its set is met", || world.meets(version)).expect("follows");
            assert_eq!(on_hook(), programs, "round {round}: the same programs, none twice");
            let count = counted(&instance);
            assert!(count > last_count, "round {round}: counters go on: {last_count}, {count}");
            last_count = count;
        }
        drop(over);
        let exchanges = talker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (exchanges, agent)
    });
    assert!(exchanges > live, "the connections talked meanwhile");
    for connection in &mut connections {
        connection.talk("to the end").expect("no connection is broken");
    }
    agent.stop().expect("an orderly end");
    instance.balancer(&["unload"]).expect("unload");
    assert_eq!(on_hook(), BTreeSet::from([foreign]), "theirs stays");
    other.balancer(&["unload"]).expect("unload the other");
}

#[test]
fn the_service_manager_is_told_of_every_turn() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let config = world.config("");
    let mut agent = Agent::start_unready(
        &instance,
        &config,
        &["--log-format", "json"],
        &[("WATCHDOG_USEC", "400000")],
    )
    .expect("an agent");
    let ready = agent.wait_told("READY=1").expect("ready");
    assert!(ready.contains("STATUS=epoch 1: "), "{ready}");
    agent.forget_told();
    agent.wait_told("WATCHDOG=1").expect("alive");
    agent.signal(Signal::SIGHUP).expect("SIGHUP");
    let reloading = agent.wait_told("RELOADING=1").expect("reloading");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    agent.wait_told("READY=1").expect("ready again");

    replace(&world.policies().join("route.yaml"), "type: TrafficRoute\n");
    agent
        .wait_logged(&["\"level\":\"ERROR\"", "route.yaml"])
        .expect("a line of JSON names the file");
    for line in agent.log().lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(event["timestamp"].is_string() && event["message"].is_string(), "{line}");
    }
    agent.signal(Signal::SIGTERM).expect("SIGTERM");
    agent.end().expect("an end");
    let stopping = agent.told().iter().any(|message| message.contains("STOPPING=1"));
    assert!(stopping, "{:?}", agent.told());
    assert_eq!(status(&instance)["running"], false);
}

#[test]
fn capabilities_are_reduced_to_what_later_work_needs() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let hooks = "[{interface: 'v-*', hook: tc}, {interface: 'late*', hook: tc}]";
    let config = world.config_for(&[world.policies()], hooks, "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let page = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its page");
    let set = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("a set");
        u64::from_str_radix(line.trim(), 16).expect("hexadecimal digits")
    };
    // CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF (capability.h).
    let kept = 1 << 12 | 1 << 38 | 1 << 39;
    assert_eq!((set("CapEff:"), set("CapPrm:"), set("CapBnd:")), (kept, kept, kept), "{page}");
    assert_eq!((set("CapInh:"), set("CapAmb:")), (0, 0), "{page}");
    let told = status(&instance)["capabilities"].clone();
    assert_eq!(told, serde_json::json!(["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]));
    // And they do for all that comes later: to publish, to attach and to detach, by tcx and by tc.
    world.route("2.0");
    agent.wait("a change is met", || world.meets("2.0")).expect("follow");
    let node = &world.bed.topology.node;
    node.ip(&["link add late0 type veth peer name peer0".to_owned()]).expect("add");
    agent.wait("what comes is attached to", || attached(&world, "late0") == 2).expect("attached");
    world.config("");
    agent.wait("what goes is let go", || attached(&world, "late0") == 0).expect("let go");
    agent.stop().expect("an orderly end");
}

#[test]
fn a_changed_configuration_is_applied_or_waits_for_a_restart() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    world.config("zone: east\nmetrics: 127.0.0.1:9901\n");
    agent.wait_logged(&["INFO", "zone", "east"]).expect("applied");
    agent.wait_logged(&["WARN", "metrics", "9901", "restart"]).expect("waits");
    agent
        .wait("status names it", || status(&instance)["restart_for"][0] == "metrics")
        .expect("told");
    // One that is wrong changes nothing.
    world.config("zon: west\n");
    agent.wait_logged(&["ERROR", "config.yaml", "zon", "not known"]).expect("refused");
    world.route("2.0");
    agent.wait("the agent goes on", || world.meets("2.0")).expect("follow");
    agent.stop().expect("an orderly end");
}
