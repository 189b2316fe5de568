//! The test bed itself: without balancer, packets go where routing says.

use std::net::SocketAddr;

use harness::{Connection, EchoServer, Topology, root_or_skip};

/// A client and a real with an address of each family.
fn pair(root: harness::Root, fixed: bool) -> Topology {
    let builder = Topology::builder()
        .host("web-1", &["10.71.1.10", "fd71:1::10"])
        .host("redis-1", &["10.71.2.10", "fd71:2::10"]);
    let builder = if fixed { builder.fixed_neighbours() } else { builder };
    builder.build(root).expect("build the topology")
}

#[test]
fn hosts_reach_each_other_through_the_node() {
    let Some(root) = root_or_skip("e2e") else { return };
    for fixed in [false, true] {
        let bed = pair(root, fixed);
        let (client, real) = (bed.host("web-1"), bed.host("redis-1"));
        for address in &real.addresses {
            let to = SocketAddr::new(*address, 6379);
            let server = EchoServer::start(&real.ns, to, "redis-1").expect("start a real");
            let from = SocketAddr::new(client.address_like(*address), 4242);
            let mut connection =
                client.ns.run(|| Connection::open(from, to)).expect("connect to the real");
            assert_eq!(connection.greeting.name, "redis-1");
            assert_eq!(connection.greeting.peer, from);
            assert_eq!(connection.remote().expect("a peer"), to);
            assert_eq!(connection.talk("hello").expect("an answer"), "redis-1");
            connection.close().expect("an orderly end");
            assert_eq!(server.accepted(), 1);
        }
    }
}

#[test]
fn namespaces_are_gone_after_a_panic() {
    let Some(root) = root_or_skip("e2e") else { return };
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let bed = pair(root, false);
        tell.send((bed.node.path(), bed.host("web-1").ns.path())).expect("somebody listens");
        panic!("as planned");
    })
    .join();
    assert!(panicked.is_err());
    let (node, host) = told.recv().expect("paths");
    assert!(!node.exists() && !host.exists());
}

#[test]
fn offloads_follow_the_switch() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = pair(root, false);
    for on in [false, true] {
        bed.offloads(on).expect("switch offloads");
        let state = if on { "on" } else { "off" };
        let client = bed.host("web-1");
        let shown = client
            .ns
            .run(|| harness::Shell::silent().run("ethtool -k eth0"))
            .expect("read the features");
        let line = format!("tx-checksumming: {state}");
        assert!(shown.lines().any(|l| l == line), "{line} is missing in\n{shown}");
    }
}

#[test]
fn an_instance_has_a_bpffs_of_its_own_and_takes_it_away() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = pair(root, false);
    let instance = harness::Instance::new(root, &bed.node).expect("mount a bpffs");
    let bpffs = instance.bpffs();
    let magic = nix::sys::statfs::statfs(&bpffs).expect("a file system").filesystem_type();
    assert_eq!(magic, nix::sys::statfs::BPF_FS_MAGIC);
    drop(instance);
    assert!(!bpffs.exists());
}
