//! What an agent refuses, and what it says then.

use std::{fs, os::unix::fs::PermissionsExt as _};

use harness::{Agent, root_or_skip};

use super::world::{World, problems, replace, status};
use crate::bed::{LIMITS, inventory};

#[test]
fn a_second_writer_is_refused_with_the_pid_of_the_agent() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let agent = world.agent(&instance);
    let config = world.config("").display().to_string();
    let policies = world.policies().display().to_string();
    for command in [vec!["agent", "--config", &config], vec!["load", "-f", &policies]] {
        let output = instance.output(&command).expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("in use by process {}", agent.pid())), "{said}");
    }
    assert_eq!(world.version().expect("a connection"), "1.0");
    agent.stop().expect("an orderly end");
}

#[test]
fn a_wrong_configuration_is_refused_with_positions() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    for (text, parts) in [
        ("polices: []\n", ["config.yaml:1:1", "did you mean `policies`?"]),
        ("policies: 7\n", ["config.yaml:1:11", "where a list belongs"]),
        ("proxy: {mark: 0x1}\n", ["config.yaml:1:15", "has 1 bits"]),
        ("dns: {servers: [nobody]}\n", ["config.yaml:1:17", "no address of a DNS server"]),
    ] {
        let path = world.home.path().join("config.yaml");
        fs::write(&path, text).expect("write");
        let path = path.display().to_string();
        for command in [["agent", "--config", &path], ["config", "-f", &path]] {
            let output = instance.output(&command).expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        }
    }
    assert!(!instance.state().exists(), "nothing was made");
}

#[test]
fn maps_too_small_for_a_set_are_told_with_their_setting_and_the_set_before_stays() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let path = world.config("");
    let text = fs::read_to_string(&path).expect("the configuration");
    let small = text.replace(LIMITS, &LIMITS.replace("reals: 1024", "reals: 40"));
    assert_ne!(text, small, "the limit is in the configuration");
    fs::write(&path, small).expect("write");
    let mut agent = Agent::start(&instance, &path, &[]).expect("an agent");
    assert_eq!(world.version().expect("a connection"), "1.0");
    let epoch = |instance: &harness::Instance<'_>| {
        instance.json(&["status"]).expect("status")["epoch"].clone()
    };
    let before = epoch(&instance);

    let mut large = inventory();
    for number in 1..=60 {
        large += &format!(
            "---\ntype: Dataplane\nmesh: default\nname: more-{number}\nnetworking:\n  address: \
             10.72.0.{number}\n  inbound:\n  - port: 6379\n    tags: {{kuma.io/service: redis, \
             version: '1.0'}}\n"
        );
    }
    replace(&world.policies().join("inventory.yaml"), &large);
    agent.wait_logged(&["ERROR", "limits.reals is 40: raise it to"]).expect("said");
    agent.wait("status says so", || status(&instance)["set"]["good"] == false).expect("told");
    let told = problems(&status(&instance)).join("\n");
    assert!(told.contains("limits.reals is 40"), "{told}");
    assert_eq!(epoch(&instance), before, "nothing was written");
    assert_eq!(world.version().expect("a connection"), "1.0");

    replace(&world.policies().join("inventory.yaml"), &inventory());
    agent.wait("it fits again", || status(&instance)["set"]["good"] == true).expect("told");
    agent.stop().expect("an orderly end");
}

#[test]
fn an_agent_whose_policies_are_broken_from_the_start_waits_for_better_ones() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let route = world.policies().join("route.yaml");
    let good = fs::read_to_string(&route).expect("the route");
    fs::write(&route, "type: TrafficRoute\n").expect("write");
    let mut agent = world.agent(&instance);
    agent.wait_logged(&["WARN", "there is no good set yet"]).expect("said");
    assert_eq!(instance.json(&["status"]).expect("status")["loaded"], false);
    replace(&route, &good);
    agent.wait("the mended set is met", || world.meets("1.0")).expect("follow");
    agent.stop().expect("an orderly end");
}

#[test]
fn an_unreadable_configuration_names_its_path() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let path = world.home.path().join("missing.yaml").display().to_string();
    let output = instance.output(&["agent", "--config", &path]).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&path), "{said}");
    let config = world.config("");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("chmod");
    Agent::start(&instance, &config, &[]).expect("an agent").stop().expect("an orderly end");
}
