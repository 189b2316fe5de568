//! Source translation in the maps: which interfaces ask for it, with which ports, and what a person
//! is told.

use std::net::Ipv6Addr;

use balancer_ebpf::abi::{Device, SnatPorts};
use balancer_user::kernel::{
    AttachOptions, Attachment, Datapath, Element, KernelError, Snat, XdpMode, XdpOptions,
};
use harness::{NetNs, root_or_skip};

use super::bed::{Bed, small};

const PORTS: SnatPorts = SnatPorts { first: 50_000, count: 1_000 };
const WITH_PORTS: AttachOptions = AttachOptions { force_clsact: false, snat_ports: Some(PORTS) };
const AS_BEFORE: AttachOptions = AttachOptions { force_clsact: false, snat_ports: None };
const CLSACT: AttachOptions = AttachOptions { force_clsact: true, ..WITH_PORTS };
const GENERIC: XdpOptions = XdpOptions { mode: XdpMode::Nat, generic: true };

/// Two interfaces, of which the first has addresses.
fn namespace(root: harness::Root) -> NetNs {
    let ns = NetNs::new(root, "snat").expect("namespace");
    let lines = [
        "link add d0 type veth peer name p0",
        "link add d1 type veth peer name p1",
        "link set d0 up",
        "link set d1 up",
        "addr add 169.254.7.7/16 dev d0",
        "addr add 10.0.9.1/24 dev d0",
        "addr add fd00:9::1/64 dev d0 nodad",
    ];
    ns.ip(&lines.map(str::to_owned)).expect("veth");
    ns
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("an interface")
}

/// What `DEVICES` says of an interface.
fn device(datapath: &Datapath, name: &str) -> Option<Device> {
    let devices = datapath.devices().expect("a map");
    devices.into_iter().find(|(at, _)| *at == index(name)).map(|(_, device)| device)
}

/// What `SNAT` holds.
fn ports(datapath: &Datapath) -> SnatPorts {
    let elements = datapath.array("SNAT", 0..1).expect("a map");
    let [Element::SnatPorts(ports)] = elements.as_slice() else { panic!("{elements:?}") };
    *ports
}

/// Interfaces that ask.
fn asking(datapath: &Datapath) -> Vec<String> {
    datapath.snat().expect("maps").map_or(Vec::new(), |snat| snat.interfaces)
}

fn attach(datapath: &mut Datapath, at: Attachment, options: AttachOptions) {
    datapath.attach(std::slice::from_ref(&at), options).unwrap_or_else(|e| panic!("{at:?}: {e}"));
}

#[test]
fn interfaces_that_ask_come_and_go_and_what_is_asked_for_last_counts() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        assert_eq!(
            (datapath.snat().expect("maps"), ports(&datapath)),
            (None, SnatPorts::default())
        );
        attach(&mut datapath, Attachment::tc("d0").with_snat(), WITH_PORTS);
        assert_eq!(ports(&datapath), PORTS);
        let snat = Snat { ports: 50_000..=50_999, interfaces: vec!["d0".to_owned()] };
        assert_eq!(datapath.snat().expect("maps"), Some(snat));

        // Calls about other interfaces leave it as it is, and so does a process that comes later.
        attach(&mut datapath, Attachment::tc("d1"), AS_BEFORE);
        drop(datapath);
        let mut datapath = Datapath::open(&bed.lock()).expect("open");
        datapath.forget_gone_interfaces().expect("pins");
        assert_eq!((asking(&datapath), ports(&datapath)), (vec!["d0".to_owned()], PORTS));

        // Whatever the hook, and with more than one.
        for at in [Attachment::xdp("d1", GENERIC), Attachment::tc("d1")] {
            attach(&mut datapath, at.with_snat(), AS_BEFORE);
            assert_eq!(asking(&datapath), ["d0", "d1"]);
        }
        attach(&mut datapath, Attachment::tc("d0"), AS_BEFORE);
        assert_eq!((asking(&datapath), ports(&datapath)), (vec!["d1".to_owned()], PORTS));
        datapath.detach("d1").expect("detach");
        assert_eq!(
            (datapath.snat().expect("maps"), ports(&datapath)),
            (None, SnatPorts::default())
        );
        assert_eq!(device(&datapath, "d1"), None);
        assert_eq!(device(&datapath, "d0").expect("attached").snat, 0);

        // Nobody said which ports.
        attach(&mut datapath, Attachment::tc("d0").with_snat(), AS_BEFORE);
        assert_eq!(ports(&datapath), SnatPorts { first: 61_000, count: 4_536 });
    });
}

#[test]
fn every_attached_interface_is_noted_with_its_addresses_as_they_are() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        for options in [WITH_PORTS, CLSACT] {
            let bed = Bed::new();
            let mut datapath = bed.create(&small());
            attach(&mut datapath, Attachment::tc("d0").with_snat(), options);
            attach(&mut datapath, Attachment::tc("d1"), options);
            let six = "fd00:9::1".parse::<Ipv6Addr>().expect("an address").octets();
            let expected =
                Device { takes_frames: 0, source4: [10, 0, 9, 1], source6: six, snat: 1 };
            assert_eq!(device(&datapath, "d0"), Some(expected), "not the one of the link alone");
            assert_eq!(device(&datapath, "d1"), Some(Device::default()));

            ns.ip(&["addr add 10.0.8.1/24 dev d1".to_owned()]).expect("an address");
            ns.ip(&["addr del 10.0.9.1/24 dev d0".to_owned()]).expect("an address");
            datapath.forget_gone_interfaces().expect("pins");
            assert_eq!(device(&datapath, "d1").expect("attached").source4, [10, 0, 8, 1]);
            assert_eq!(device(&datapath, "d0"), Some(Device { source4: [0; 4], ..expected }));

            ns.ip(&["addr del 10.0.8.1/24 dev d1".to_owned()]).expect("an address");
            ns.ip(&["addr add 10.0.9.1/24 dev d0".to_owned()]).expect("an address");
        }
    });
}

#[test]
fn attaching_that_fails_leaves_what_was_asked_for_before() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        attach(&mut datapath, Attachment::tc("d0").with_snat(), WITH_PORTS);
        // The loopback's driver has no XDP.
        let native = XdpOptions { generic: false, ..GENERIC };
        let refused = datapath.attach(
            &[
                Attachment::tc("d0"),
                Attachment::tc("d1").with_snat(),
                Attachment::xdp("lo", native).with_snat(),
            ],
            AS_BEFORE,
        );
        let error = refused.expect_err("no driver");
        assert!(matches!(error, KernelError::NoNativeXdp { .. }), "{error}");
        assert_eq!((asking(&datapath), ports(&datapath)), (vec!["d0".to_owned()], PORTS));
        assert_eq!((device(&datapath, "d1"), device(&datapath, "lo")), (None, None));
    });
}

#[test]
fn ports_change_where_somebody_asks_and_interfaces_that_went_ask_no_more() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        let others = SnatPorts { first: 7, count: 1 };
        assert!(!datapath.set_snat_ports(others).expect("a map"), "nobody asks");
        assert_eq!(ports(&datapath), SnatPorts::default());
        attach(&mut datapath, Attachment::tc("d1").with_snat(), WITH_PORTS);
        assert!(datapath.set_snat_ports(others).expect("a map"));
        assert!(!datapath.set_snat_ports(others).expect("a map"), "they are those already");
        assert_eq!(ports(&datapath), others);
        assert_eq!(datapath.snat().expect("maps").expect("asked for").ports, 7..=7);
        ns.ip(&["link del d1".to_owned()]).expect("ip");
        assert_eq!(datapath.forget_gone_interfaces().expect("pins"), ["d1"]);
        assert_eq!(
            (datapath.devices().expect("a map"), ports(&datapath)),
            (vec![], SnatPorts::default())
        );
    });
}

#[test]
fn ports_that_the_node_itself_uses_and_rules_that_are_passed_by_are_told() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        let found = |datapath: &Datapath| -> Vec<String> {
            let findings = datapath.snat_findings().expect("findings");
            findings.into_iter().map(|finding| finding.message).collect()
        };
        assert_eq!(found(&datapath), [] as [&str; 0]);
        attach(&mut datapath, Attachment::tc("d0").with_snat(), WITH_PORTS);
        attach(&mut datapath, Attachment::tc("d1"), WITH_PORTS);
        // No real has an address of any family yet.
        let told = found(&datapath).join("\n");
        assert!(told.contains("50000-50999 overlap") && told.contains("32768-60999"), "{told}");
        assert!(told.contains("snat on d0") && told.contains("`stack`"), "{told}");
        assert!(!told.contains("snat on d1") && !told.contains("address"), "{told}");

        ns.sysctl("net/ipv4/ip_local_reserved_ports", "50000-50999").expect("sysctl");
        ns.nft("table inet t { chain f { type filter hook forward priority 0; ct state new; }; }")
            .expect("nft");
        let told = found(&datapath).join("\n");
        assert!(!told.contains("overlap") && told.contains("inet t f"), "{told}");
    });
}
