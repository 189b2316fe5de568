//! Files and directories that change in every way that people and programs change them.

use std::time::Duration;

use harness::{patience, root_or_skip};

use super::world::World;

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
