//! Interfaces that come and go.

use harness::{Agent, hooks, root_or_skip};

use super::world::{World, status};

/// How many programs are on the hooks of an interface of the node: ours are two.
pub(super) fn attached(world: &World, interface: &str) -> usize {
    let programs = world.bed.topology.node.run(|| hooks::programs(interface));
    programs.map_or(0, |programs| programs.len())
}

#[test]
fn an_interface_is_attached_to_when_it_comes_and_again_when_it_comes_back() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let config = world.config_for(
        &[world.policies()],
        "[{interface: 'v-*', hook: tc}, {interface: 'late*', hook: tc}]",
        "",
    );
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    agent.wait_logged(&["WARN", "late*", "no interface is called so"]).expect("said");
    let node = &world.bed.topology.node;
    for _ in 0..3 {
        node.ip(&["link add late0 type veth peer name peer0".to_owned()]).expect("add");
        agent.wait("it is attached to", || attached(&world, "late0") == 2).expect("attached");
        agent
            .wait("status names it", || {
                status(&instance)["interfaces"][1]["attached"][0] == "late0"
            })
            .expect("told");
        node.ip(&["link del late0".to_owned()]).expect("delete");
        agent
            .wait("its pin is gone", || {
                let links = instance.json(&["status"]).expect("status")["links"].clone();
                let links = links.as_array().expect("links").clone();
                links.iter().all(|link| link["interface"] != "late0")
            })
            .expect("forgotten");
    }
    // Renamed: the program stays, and there is no second one.
    node.ip(&["link add late1 type veth peer name peer1".to_owned()]).expect("add");
    agent.wait("it is attached to", || attached(&world, "late1") == 2).expect("attached");
    node.ip(&["link set late1 name late2".to_owned()]).expect("rename");
    agent
        .wait("status has the new name", || {
            status(&instance)["interfaces"][1]["attached"][0] == "late2"
        })
        .expect("told");
    assert_eq!(attached(&world, "late2"), 2, "no second program");
    assert_eq!(world.version().expect("a connection"), "1.0");
    agent.stop().expect("an orderly end");
    node.ip(&["link del late2".to_owned()]).expect("delete");
}

#[test]
fn an_interface_that_the_configuration_gives_up_is_let_go() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let node = &world.bed.topology.node;
    node.ip(&["link add spare0 type veth peer name spare1".to_owned()]).expect("add");
    let with = "[{interface: 'v-*', hook: tc}, {interface: spare0, hook: tc}]";
    let config = world.config_for(&[world.policies()], with, "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    assert_eq!(attached(&world, "spare0"), 2);
    world.config("");
    agent.wait("it is let go", || attached(&world, "spare0") == 0).expect("let go");
    assert_eq!(world.version().expect("a connection"), "1.0", "the others stay");
    agent.stop().expect("an orderly end");
    node.ip(&["link del spare0".to_owned()]).expect("delete");
}
