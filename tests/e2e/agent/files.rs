//! Files and directories that change in every way that people and programs change them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use harness::{Agent, patience, root_or_skip};

use super::world::{World, only, problems, replace, status};
use crate::bed::{MAGLEV, inventory, split};

/// Generous: a test machine may be busy. The figure is in docs/benchmarks.md.
const VISIBLE: Duration = Duration::from_secs(5);

#[test]
fn a_renamed_file_is_met_by_new_connections() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    assert_eq!(world.version().expect("a connection"), "1.0");
    for version in ["2.0", "3.0", "1.0"] {
        world.route(version);
        let took = agent.wait("new connections follow", || world.meets(version)).expect("follow");
        assert!(took < patience(VISIBLE), "{version} after {took:?}");
    }
    agent.stop().expect("an orderly end");
    assert_eq!(world.version().expect("a connection without an agent"), "1.0");
}

#[test]
fn small_changes_leave_what_a_load_of_the_files_would_leave() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let config = world.config("log: {level: debug}\n");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let whole = inventory();
    // The last Dataplane of the inventory is the last real's.
    let (fewer, _) = whole.rsplit_once("---\n").expect("documents");
    let shares =
        |one, two| split("redis-canary", "*", "redis", &[("1.0", one), ("2.0", two)], MAGLEV);
    let turns = [
        ("route.yaml", shares(1, 1), false),
        ("route.yaml", shares(90, 10), true),
        ("inventory.yaml", fewer.to_owned(), true),
        ("route.yaml", shares(0, 10), true),
        ("inventory.yaml", whole.clone(), true),
        ("route.yaml", shares(10, 90), true),
    ];
    for (number, (file, text, small)) in turns.into_iter().enumerate() {
        let flips = || status(&instance)["publish"]["epoch"].as_u64().expect("an epoch");
        let before = flips();
        replace(&world.policies().join(file), &text);
        agent.wait("the change is live", || flips() > before).expect("a publish");
        let log = agent.log();
        let how = log.lines().rfind(|line| line.contains("resolved and compiled"));
        let how = how.expect("the agent says how");
        assert_eq!(how.contains("small=true"), small, "turn {number}: {how}");
        let policies = world.policies();
        let plan = instance.balancer(&["plan", "-f", policies.to_str().expect("a path")]);
        let plan = plan.expect("a plan");
        assert!(plan.contains("no changes"), "turn {number}: {plan}");
    }
    agent.stop().expect("an orderly end");
}

#[test]
fn a_directory_that_is_replaced_by_rename_is_followed() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    for version in ["2.0", "3.0"] {
        let next = world.home.path().join("next");
        fs::create_dir(&next).expect("make a directory");
        fs::write(next.join("inventory.yaml"), inventory()).expect("write");
        fs::write(next.join("route.yaml"), only(version)).expect("write");
        fs::rename(world.policies(), world.home.path().join(format!("before-{version}")))
            .expect("rename away");
        fs::rename(&next, world.policies()).expect("rename into place");
        agent.wait("the new directory is met", || world.meets(version)).expect("follow");
    }
    // And files in the directory that is there now.
    world.route("1.0");
    agent.wait("a file of the new directory is met", || world.meets("1.0")).expect("follow");
    agent.stop().expect("an orderly end");
}

#[test]
fn a_flipped_symbolic_link_is_followed_as_kubernetes_mounts_flip_it() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mount = world.home.path().join("mount");
    let place = |version: &str| {
        let content = mount.join(format!("..{version}"));
        fs::create_dir_all(&content).expect("make a directory");
        fs::write(content.join("inventory.yaml"), inventory()).expect("write");
        fs::write(content.join("route.yaml"), only(version)).expect("write");
        let beside = mount.join("..data_tmp");
        symlink(format!("..{version}"), &beside).expect("link");
        fs::rename(&beside, mount.join("..data")).expect("flip");
    };
    place("1.0");
    for name in ["inventory.yaml", "route.yaml"] {
        symlink(format!("..data/{name}"), mount.join(name)).expect("link");
    }
    let config =
        world.config_for(std::slice::from_ref(&mount), "[{interface: 'v-*', hook: tc}]", "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    assert_eq!(world.version().expect("a connection"), "1.0");
    for (version, before) in [("2.0", "1.0"), ("3.0", "2.0")] {
        place(version);
        agent.wait("the flip is met", || world.meets(version)).expect("follow");
        fs::remove_dir_all(mount.join(format!("..{before}"))).expect("remove what was before");
    }
    assert_eq!(status(&instance)["set"]["good"], true);
    let log = agent.stop().expect("an orderly end");
    assert!(!log.contains("ERROR"), "two generations were never read together:\n{log}");
}

#[test]
fn a_broken_file_keeps_the_last_good_set_and_status_says_so() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    let route = world.policies().join("route.yaml");
    let broken = only("2.0").replace("weight: 1", "weight: many");
    replace(&route, &broken);
    agent.wait_logged(&["ERROR", "route.yaml", "conf.split[0].weight"]).expect("said at once");
    agent.wait("status says so", || status(&instance)["set"]["good"] == false).expect("said");
    let told = status(&instance);
    let problem = problems(&told).remove(0);
    assert!(problem.contains("route.yaml:11: ") && problem.contains("`many`"), "{problem}");
    assert!(told["set"]["broken_since"].as_f64().is_some(), "{told}");
    let text = instance.balancer(&["status"]).expect("status");
    assert!(text.contains("NOT what the files say") && text.contains("route.yaml:"), "{text}");
    assert_eq!(world.version().expect("a connection"), "1.0", "the last good set stays");

    // Mended: in place this time, as an editor without renames does.
    fs::write(&route, only("2.0")).expect("write in place");
    agent.wait("the mended file is met", || world.meets("2.0")).expect("follow");
    agent.wait("status says so", || status(&instance)["set"]["good"] == true).expect("said");
    agent.stop().expect("an orderly end");
}

#[test]
fn a_directory_that_is_removed_or_unreadable_keeps_the_last_good_set() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    let aside = world.home.path().join("aside");
    let said = |part: &str| {
        let told = status(&instance);
        told["set"]["good"] == false
            && told["paths"][0]["problem"].as_str().is_some_and(|problem| problem.contains(part))
    };

    fs::rename(world.policies(), &aside).expect("take the directory away");
    agent.wait("its absence is told", || said("is not there")).expect("told");
    agent.wait_logged(&["ERROR", "policies", "is not there"]).expect("logged");
    assert_eq!(world.version().expect("a connection"), "1.0", "the last good set stays");
    fs::rename(&aside, world.policies()).expect("put it back");
    agent.wait("its return is told", || status(&instance)["set"]["good"] == true).expect("told");
    world.route("2.0");
    agent.wait("it is followed again", || world.meets("2.0")).expect("follow");

    // The agent has given up the capability that lets root read everything.
    let mode = |mode| {
        fs::set_permissions(world.policies(), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(0o000);
    agent.wait("its mode is told", || said("cannot be read")).expect("told");
    assert_eq!(world.version().expect("a connection"), "2.0", "the last good set stays");
    mode(0o755);
    agent.wait("it is readable again", || status(&instance)["set"]["good"] == true).expect("told");
    world.route("3.0");
    agent.wait("it is followed again", || world.meets("3.0")).expect("follow");

    // An empty one is no set that means nothing.
    fs::remove_dir_all(world.policies()).expect("remove");
    fs::create_dir(world.policies()).expect("make it anew");
    agent.wait_logged(&["ERROR", "holds no *.yaml"]).expect("logged");
    assert_eq!(world.version().expect("a connection"), "3.0", "the last good set stays");
    agent.stop().expect("an orderly end");
}

#[test]
fn two_directories_that_contradict_each_other_keep_the_last_good_set() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let other = world.home.path().join("other");
    fs::create_dir(&other).expect("make a directory");
    // A set of its own, which contradicts nothing yet.
    let elsewhere = only("3.0").replace("redis-canary", "elsewhere").replace("'*'", "nobody");
    fs::write(other.join("route.yaml"), elsewhere).expect("write");
    let config =
        world.config_for(&[world.policies(), other.clone()], "[{interface: 'v-*', hook: tc}]", "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    assert_eq!(world.version().expect("a connection"), "1.0");

    replace(&other.join("route.yaml"), &only("3.0"));
    agent.wait_logged(&["ERROR", "there are two of TrafficRoute"]).expect("logged");
    agent.wait("status says so", || status(&instance)["set"]["good"] == false).expect("said");
    let told = problems(&status(&instance)).join("\n");
    assert!(told.contains("redis-canary") && told.contains("route.yaml"), "{told}");
    assert_eq!(world.version().expect("a connection"), "1.0", "the last good set stays");

    fs::remove_file(world.policies().join("route.yaml")).expect("remove one of them");
    agent.wait("the other one is met", || world.meets("3.0")).expect("follow");
    agent.stop().expect("an orderly end");
}
