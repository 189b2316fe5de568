//! Commands that the kernel, a privilege or another process stops: each says why and what to do,
//! and leaves what was running as it was.

use std::{
    fs::{self, File},
    process::Command,
};

use harness::{Instance, root_or_skip};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    run::Ended,
    world::{ATTACH, World, route, topology},
};

/// Runs `refuse` on a loaded world, and holds that nothing changed by it.
fn leaves_what_runs_untouched(refuse: impl FnOnce(&World<'_>)) {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.load(&ATTACH).exits(0);
    let before = world.snapshot();
    refuse(&world);
    world.is_still(&before);
    world.run(&["unload"]).exits(0);
}

/// Runs `balancer ARGS` as root without any capability.
fn without_privileges(instance: &Instance<'_>, args: &[&str]) -> Ended {
    let wanted = instance.command(args);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(wanted.get_program());
    let output = command.args(wanted.get_args()).output().expect("setpriv of util-linux");
    Ended::new(format!("setpriv --bounding-set -all {}", instance.line(args)), output)
}

#[test]
fn missing_interface() {
    leaves_what_runs_untouched(|world| {
        world.write("route.yaml", &route(1, 1));
        world.load(&["--attach", "nowhere0=tc"]).exits(3).says(&["nowhere0", "v-web-1"]);
    });
}

#[test]
fn missing_interface_at_the_first_load_leaves_nothing() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.load(&["--attach", "v-web-1=tc", "--attach", "nowhere0=tc"]).exits(3).says(&["nowhere0"]);
    world.run(&["status"]).exits(0).prints(&["nothing is loaded"]);
    world.load(&ATTACH).exits(0).prints(&["epoch 1 is live"]);
    world.run(&["unload"]).exits(0);
}

#[test]
fn no_root() {
    leaves_what_runs_untouched(|world| {
        let load = ["load", "-f", world.policies()];
        let requirements = ["status", "--requirements"];
        for args in [&load[..], &["unload"], &["show", "vips"], &["status"], &requirements] {
            without_privileges(&world.instance, args).exits(3).says(&["root", "CAP_"]);
        }
        // What needs no privilege works without.
        let check = without_privileges(&world.instance, &["check", "-f", world.policies()]);
        check.exits(0);
    });
}

#[test]
fn no_bpffs() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let pins = elsewhere.path().join("pins");
    let mut command = topology.node.command(harness::instance::balancer_binary());
    command.args(["load", "-f", world.policies(), "--bpffs"]).arg(&pins);
    let state = world.instance.state();
    let output = command.arg("--state").arg(&state).output().expect("balancer can be started");
    Ended::new("balancer load --bpffs DIR".to_owned(), output)
        .exits(3)
        .says(&["BPF file system", "mount -t bpf"]);
    assert!(!pins.exists() && !state.exists(), "a refused load left something");
}

#[test]
fn foreign_filter_on_the_hook_stays_and_is_named() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    const SHOW: [&str; 5] = ["filter", "show", "dev", "v-web-1", "ingress"];
    let tc = |args: &[&str]| -> String {
        let output = topology.node.command("tc").args(args).output().expect("tc runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tc {args:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    tc(&["qdisc", "add", "dev", "v-web-1", "clsact"]);
    // Classic BPF that matches nothing: every kernel with TC programs has this classifier.
    let filter = ["filter", "add", "dev", "v-web-1", "ingress", "pref", "7", "protocol", "all"];
    tc(&[&filter[..], &["bpf", "bytecode", "1,6 0 0 0"]].concat());
    let before = tc(&SHOW);
    world.load(&ATTACH).exits(0).says(&["v-web-1", "not touched"]);
    let shown = tc(&SHOW);
    assert!(shown.contains("pref 7 bpf"), "{shown}");
    let status = world.json(&["status"]);
    assert_eq!(status["foreign"][0]["interface"], "v-web-1", "{status:#}");
    world.run(&["unload"]).exits(0);
    assert_eq!(tc(&SHOW), before);
    assert!(
        tc(&["qdisc", "show", "dev", "v-web-1"]).contains("clsact"),
        "the other's qdisc is gone"
    );
}

#[test]
fn full_map() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    // Two VIPs are needed: web and redis.
    let config = world.files.path().join("config.txt");
    fs::write(&config, "limits: {services: 1}\n").expect("the file can be written");
    let config = config.to_str().expect("UTF-8");
    world.load(&["--config", config]).exits(1).says(&["limits.services", "1"]);
    world.run(&["status"]).exits(0).prints(&["nothing is loaded"]);

    fs::write(config, "limits: {services: 2, flows: 1000}\n").expect("the file can be written");
    world.load(&[&["--config", config], &ATTACH[..]].concat()).exits(0);
    let before = world.snapshot();
    let third = "type: Dataplane\nmesh: default\nname: extra\nnetworking:\n  address: 10.0.0.31\n  \
                 inbound:\n  - {port: 80, tags: {kuma.io/service: extra}}\n";
    world.write("extra.yaml", third);
    world.load(&[]).exits(1).says(&["limits.services", "balancer unload"]);
    world.is_still(&before);

    // Sizes of a later configuration must be those that are pinned.
    fs::write(config, "limits: {services: 3, flows: 1000}\n").expect("the file can be written");
    world
        .load(&["--config", config])
        .exits(2)
        .says(&["limits.services is 3, pinned with 2", "balancer unload --bpffs"]);
    world.is_still(&before);
    world.run(&["unload"]).exits(0);
}

#[test]
fn two_writers_at_once() {
    leaves_what_runs_untouched(|world| {
        let pins = File::open(world.instance.bpffs()).expect("the pin directory");
        let held = Flock::lock(pins, FlockArg::LockExclusiveNonblock).expect("nobody else writes");
        let me = format!("process {}", std::process::id());
        world.load(&[]).exits(3).says(&["in use", &me]);
        world.run(&["unload"]).exits(3).says(&["in use", &me]);
        // Readers need no lock.
        world.run(&["show", "vips"]).exits(0);
        drop(held);
    });
}

#[test]
fn invalid_policies() {
    leaves_what_runs_untouched(|world| {
        world.write("route.yaml", &route(0, 0));
        world.load(&[]).exits(1).says(&["route.yaml:", "conf.split", "nothing was changed"]);
    });
}

#[test]
fn damaged_or_foreign_state() {
    leaves_what_runs_untouched(|world| {
        let vips = world.instance.state().join("vips.json");
        let saved = fs::read(&vips).expect("the assignments");
        fs::write(&vips, "{\"format\": 1, \"vips\": [").expect("the file can be written");
        world.load(&[]).exits(3).says(&["vips.json", "damaged", "mv "]);
        assert_eq!(fs::read(&vips).expect("still there"), b"{\"format\": 1, \"vips\": [");
        fs::write(&vips, saved).expect("the file can be written");
    });
}

#[test]
fn state_of_another_instance() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let first = World::new(root, &topology);
    let second = World::new(root, &topology);
    first.load(&[]).exits(0);
    let before = first.snapshot();
    let mut command = topology.node.command(harness::instance::balancer_binary());
    command.args(["load", "-f", second.policies(), "--bpffs"]).arg(second.instance.bpffs());
    let output = command.arg("--state").arg(first.instance.state()).output().expect("it starts");
    Ended::new("balancer load --state OTHER".to_owned(), output)
        .exits(3)
        .says(&["belongs to the instance pinned at", "--state DIR"]);
    first.is_still(&before);
    second.run(&["status"]).exits(0).prints(&["nothing is loaded"]);
    first.run(&["unload"]).exits(0);
}

#[test]
fn configuration_keys_that_load_leaves_to_the_agent_are_named() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    let config = world.files.path().join("config.txt");
    fs::write(&config, "zone: east\nmetrics: 127.0.0.1:1\ndrain: {deadline: 5s, on_gone: keep}\n")
        .expect("the file can be written");
    let ended = world.load(&["--config", config.to_str().expect("UTF-8")]).exits(0);
    let ended = ended.says(&["to the agent: metrics, drain.deadline"]);
    assert!(!ended.stderr.contains("zone"), "{ended}");
    world.run(&["unload"]).exits(0);
}
