//! The way of packets: both ends' view, who may go where, much data.

use std::{net::SocketAddr, time::Duration};

use harness::{
    Connection, EchoServer, Topology, backends::anywhere, bulk, patience, root_or_skip, scaled,
};

use crate::bed::{Bed, MAGLEV, VIP4, VIP6, count, small_maps, split, version_of, vip};

#[test]
fn clients_see_the_vip_and_reals_see_the_client() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV));
    for to in [VIP4, VIP6] {
        for client in ["web-1", "web-2", "guest"] {
            // `dial` asserts both views of each connection.
            let greetings = bed.dial(client, to, 12_000..12_020);
            assert_eq!(greetings.len(), 20);
        }
    }
    let accepted = bed.accepted();
    assert_eq!(accepted.values().sum::<u64>(), 120, "one real for each connection: {accepted:?}");
}

#[test]
fn sources_with_other_policies_get_other_routes_for_the_same_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let routes = [
        split("for-web-1", "web-1", "redis", &[("1.0", 1)], MAGLEV),
        split("for-web-2", "web-2", "redis", &[("2.0", 1)], MAGLEV),
        split("for-all", "*", "redis", &[("3.0", 1)], MAGLEV),
    ];
    bed.load(&instance, &routes.join("---\n"));
    for to in [VIP4, VIP6] {
        for (client, version) in [("web-1", "1.0"), ("web-2", "2.0"), ("guest", "3.0")] {
            let greetings = bed.dial(client, to, 13_000..13_050);
            let counts = count(greetings.iter().map(|(_, greeting)| greeting));
            assert!(
                counts.keys().all(|name| version_of(name) == version),
                "{client} to {to}: {counts:?}"
            );
        }
    }
}

#[test]
fn traffic_to_no_vip_passes_untouched() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("2.0", 1)], MAGLEV));
    let host = bed.topology.host("d");
    for address in &host.addresses {
        // The VIP's own port at a real's own address, and a port that nobody balances.
        let plain = SocketAddr::new(*address, 7777);
        let _server = EchoServer::start(&host.ns, plain, "plain").expect("a server");
        let direct = SocketAddr::new(*address, 6379);
        for (to, name) in [(plain, "plain"), (direct, "d")] {
            let connection = bed.topology.host("web-1").ns.run(|| {
                Connection::open(anywhere(to), to).unwrap_or_else(|e| panic!("{to}: {e:#}"))
            });
            assert_eq!(connection.greeting.name, name);
            connection.close().expect("an orderly end");
        }
    }
}

#[test]
fn an_empty_backend_refuses_its_share_at_once() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("9.9", 1)], MAGLEV));
    for to in [VIP4, VIP6] {
        let begun = std::time::Instant::now();
        let refused = bed.open("web-1", to).expect_err("nobody is there");
        let os = refused.downcast_ref::<nix::errno::Errno>().copied();
        assert_eq!(os, Some(nix::errno::Errno::ECONNREFUSED), "{refused:#}");
        let elapsed = begun.elapsed();
        assert!(elapsed < patience(Duration::from_secs(1)), "a reset, not a silence: {elapsed:?}");
    }
}

#[test]
fn much_data_each_way_arrives_whole_with_offloads_and_without() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = "type: Mesh\nname: default\n---\n\
         type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: 10.71.1.10\n  \
         inbound: [{port: 80, tags: {kuma.io/service: web}}]\n  outbound:\n  \
         - {address: 10.99.0.9, port: 5000, tags: {kuma.io/service: bulk}}\n---\n\
         type: Dataplane\nmesh: default\nname: web6\nnetworking:\n  address: 'fd71:1::10'\n  \
         inbound: [{port: 80, tags: {kuma.io/service: web}}]\n  outbound:\n  \
         - {address: 'fd99::9', port: 5000, tags: {kuma.io/service: bulk}}\n---\n\
         type: Dataplane\nmesh: default\nname: bulk\nnetworking:\n  address: 10.71.2.10\n  \
         inbound: [{port: 5001, tags: {kuma.io/service: bulk}}]\n---\n\
         type: Dataplane\nmesh: default\nname: bulk6\nnetworking:\n  address: 'fd71:2::10'\n  \
         inbound: [{port: 5001, tags: {kuma.io/service: bulk}}]\n";
    let bed = Topology::builder()
        .host("web", &["10.71.1.10", "fd71:1::10"])
        .host("bulk", &["10.71.2.10", "fd71:2::10"])
        .build(root)
        .expect("build the topology");
    let instance = harness::Instance::new(root, &bed.node).expect("an instance");
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("world.yaml");
    std::fs::write(&path, world).expect("write policies");
    let (path, config) = (path.display().to_string(), small_maps(folder.path()));
    let config = config.display().to_string();
    let mut args = vec!["load", "-f", &path, "--config", &config];
    args.extend(["--attach", "v-web=tc", "--attach", "v-bulk=tc"]);
    instance.balancer(&args).expect("load");
    // A gibibyte, or many segments all the same.
    let bytes: u64 = scaled(1 << 30, 8 << 20);

    for (offloads, to, real) in [
        (true, "10.99.0.9:5000", "10.71.2.10:5001"),
        (false, "10.99.0.9:5000", "10.71.2.10:5001"),
        (true, "[fd99::9]:5000", "[fd71:2::10]:5001"),
        (false, "[fd99::9]:5000", "[fd71:2::10]:5001"),
    ] {
        bed.offloads(offloads).expect("switch offloads");
        let to = vip(to);
        let server = bulk::serve_once(&bed.host("bulk").ns, vip(real)).expect("a server");
        bed.host("web")
            .ns
            .run(|| bulk::exchange(anywhere(to), to, bytes))
            .unwrap_or_else(|e| panic!("through {to}, offloads {offloads}: {e:#}"));
        server.join().expect("no panic").expect("the real is content");
    }
}
