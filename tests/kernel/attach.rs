//! Programs on interfaces: tcx links, clsact filters, programs of others.

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, TcAttachType, tc};
use balancer_user::kernel::{
    self, AttachOptions, Attached, Attachment, Datapath, Direction, Hook, KernelError,
    PublishOptions,
};
use harness::{Feature, NetNs, Shell, hooks, root_or_skip, since};

use super::{
    bed::{Bed, plain, small},
    world::{Service, compiled, real, resolved, service},
};

const CLSACT: AttachOptions = AttachOptions { force_clsact: true, snat_ports: None };
/// By tcx links, where the kernel has them.
const BEST: AttachOptions = AttachOptions { force_clsact: false, snat_ports: None };

/// The ways to ask that make a difference, and the hook that each gives.
fn ways() -> Vec<(AttachOptions, Hook)> {
    if Feature::Tcx.is_here() {
        vec![(BEST, Hook::Tcx), (CLSACT, Hook::Clsact)]
    } else {
        vec![(BEST, Hook::Clsact)]
    }
}

/// A namespace with an interface of each name, up.
fn namespace(root: harness::Root, interfaces: &[&str]) -> NetNs {
    let ns = NetNs::new(root, "kernel").expect("namespace");
    for name in interfaces {
        add(&ns, name);
    }
    ns
}

fn add(ns: &NetNs, name: &str) {
    ns.ip(&[
        format!("link add {name} type veth peer name p{name}"),
        format!("link set {name} up"),
        format!("link set p{name} up"),
    ])
    .expect("veth");
}

fn to(names: &[&str]) -> Vec<Attachment> {
    names.iter().map(|n| Attachment::tc(*n)).collect()
}

fn attach(datapath: &mut Datapath, names: &[&str], options: AttachOptions) -> Attached {
    datapath.attach(&to(names), options).expect("attach")
}

/// Ids of all programs on an interface, whatever the hook.
fn on(name: &str) -> BTreeSet<u32> {
    hooks::programs(name).expect("what is on the interface")
}

/// `tc ARGS` in this thread's namespace.
fn tc(args: &str) {
    Shell::silent().run(&format!("tc {args}")).expect("tc");
}

fn qdiscs(name: &str) -> String {
    hooks::qdiscs(name).expect("the qdiscs")
}

fn filters(name: &str) -> String {
    hooks::filters(name).expect("the filters")
}

#[test]
fn links_are_made_once_and_adopted_by_later_processes() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root, &["d0", "d1.100"]);
    ns.run(|| {
        for (options, hook) in ways() {
            let bed = Bed::new();
            let mut datapath = bed.create(&small());
            let first = attach(&mut datapath, &["d0", "d1.100", "d0"], options);
            assert_eq!((first.made.len(), first.adopted.len()), (4, 0), "{first:?}");
            assert!(first.warnings.is_empty() && first.foreign.is_empty(), "{first:?}");
            let before = (on("d0"), filters("d0"));
            assert_eq!(before.0.len(), 2, "ingress and egress: {before:?}");
            drop(datapath);
            assert_eq!(on("d0"), before.0, "the programs stay when the process goes");
            let mut datapath = Datapath::open(&bed.lock()).expect("open");
            // Also without force: never a second program for each packet.
            for options in [options, BEST] {
                let again = attach(&mut datapath, &["d0", "d1.100"], options);
                assert_eq!((again.made.len(), again.adopted.len()), (0, 4), "{again:?}");
            }
            assert_eq!((on("d0"), filters("d0")), before);
            let links = datapath.links().expect("links");
            assert!(links.iter().all(|l| l.live && l.hook == hook), "{hook:?}: {links:?}");
            assert_eq!(links.len(), 4);
            // What is said is what is used, whatever the kernel could do.
            let said = match (hook, Feature::Tcx.is_here()) {
                (Hook::Tcx, _) => "yes",
                (_, true) => "yes, but using clsact on d0, d1.100",
                (_, false) => "no, using clsact",
            };
            let features = kernel::requirements::fall_backs(&links).expect("probes");
            let tcx = features.iter().find(|(f, ..)| f.name() == "tcx").expect("a line on tcx");
            assert_eq!(tcx.2, said);
            let d0 = ("d0", Direction::Ingress);
            assert_eq!((links[0].interface.as_str(), links[0].direction), d0);
            assert_eq!(links[2].interface, "d1.100");
            assert_eq!(qdiscs("d0").contains("clsact"), hook == Hook::Clsact);
            drop(datapath);
            let unloaded = kernel::unload(bed.dir()).expect("unload");
            let qdiscs_made = if hook == Hook::Clsact { 2 } else { 0 };
            assert_eq!((unloaded.links.len(), unloaded.qdiscs.len()), (4, qdiscs_made));
            assert!(on("d0").is_empty() && on("d1.100").is_empty());
            assert!(!qdiscs("d0").contains("clsact") && !qdiscs("d1.100").contains("clsact"));
        }
    });
}

#[test]
fn interface_that_was_made_anew_gets_new_links() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root, &["d0"]);
    ns.run(|| {
        for (options, hook) in ways() {
            let bed = Bed::new();
            let mut datapath = bed.create(&small());
            attach(&mut datapath, &["d0"], options);
            ns.ip(&["link del d0".into()]).expect("delete");
            let links = datapath.links().expect("links");
            assert!(links.iter().all(|l| !l.live), "{links:?}");
            add(&ns, "d0");
            assert!(on("d0").is_empty());
            let again = attach(&mut datapath, &["d0"], options);
            assert_eq!((again.made.len(), again.adopted.len()), (2, 0), "{again:?}");
            assert_eq!(on("d0").len(), 2, "{hook:?}");
            drop(datapath);
            kernel::unload(bed.dir()).expect("unload");
            assert!(on("d0").is_empty() && !qdiscs("d0").contains("clsact"));
        }
    });
}

#[test]
fn foreign_tcx_program_is_reported_and_stays() {
    let Some(root) = root_or_skip("kernel") else { return };
    if !since(Feature::Tcx) {
        return;
    }
    let (bed, other, ns) = (Bed::new(), Bed::new(), namespace(root, &["d0"]));
    ns.run(|| {
        let theirs = other.create(&small());
        let mut program =
            SchedClassifier::from_pin(other.dir().join("progs/balancer_in")).expect("program");
        let id = program.info().expect("info").id();
        program.attach("d0", TcAttachType::Ingress).expect("foreign");
        let mut datapath = bed.create(&small());
        let attached = attach(&mut datapath, &["d0"], BEST);
        assert_eq!(attached.foreign.len(), 1, "{attached:?}");
        assert_eq!((attached.foreign[0].program, attached.foreign[0].hook), (id, Hook::Tcx));
        drop(datapath);
        kernel::unload(bed.dir()).expect("unload");
        assert_eq!(on("d0"), BTreeSet::from([id]));
        drop((program, theirs));
    });
}

#[test]
fn missing_interface_is_named_with_those_that_exist() {
    let Some(root) = root_or_skip("kernel") else { return };
    let (bed, ns) = (Bed::new(), namespace(root, &["d0"]));
    ns.run(|| {
        let mut datapath = bed.create(&small());
        let error = datapath.attach(&to(&["d0", "eth9"]), BEST).expect_err("missing");
        let KernelError::NoInterface { name, present } = &error else { panic!("{error}") };
        assert_eq!(name, "eth9");
        assert!(present.contains(&"d0".into()) && present.contains(&"lo".into()), "{error}");
        assert!(on("d0").is_empty(), "nothing was attached");
    });
}

#[test]
fn loopback_and_interfaces_that_are_down_get_a_warning() {
    let Some(root) = root_or_skip("kernel") else { return };
    let (bed, ns) = (Bed::new(), namespace(root, &["d0"]));
    ns.run(|| {
        ns.ip(&["link set d0 down".into()]).expect("down");
        let mut datapath = bed.create(&small());
        let attached = attach(&mut datapath, &["lo", "d0"], BEST);
        assert_eq!(attached.made.len(), 4);
        assert_eq!(attached.warnings.len(), 2, "{:?}", attached.warnings);
        assert!(attached.warnings[0].contains("lo is the loopback"), "{:?}", attached.warnings);
        assert!(attached.warnings[1].contains("d0 is down"), "{:?}", attached.warnings);
    });
}

#[test]
fn clsact_qdisc_of_others_stays_with_their_filters() {
    let Some(root) = root_or_skip("kernel") else { return };
    let (bed, other, ns) = (Bed::new(), Bed::new(), namespace(root, &["d0", "d1"]));
    ns.run(|| {
        // d0: the qdisc was there. d1: we make it, somebody adds a filter later.
        tc::qdisc_add_clsact("d0").expect("qdisc");
        let mut datapath = bed.create(&small());
        attach(&mut datapath, &["d0", "d1"], CLSACT);
        let theirs = other.create(&small());
        let program = other.dir().join("progs/balancer_ask");
        let program = program.display();
        tc(&format!("filter add dev d1 ingress pref 7 bpf da object-pinned {program}"));
        let foreign = datapath.foreign_programs().expect("foreign");
        assert_eq!(foreign.len(), 1, "{foreign:?}");
        assert_eq!((foreign[0].interface.as_str(), foreign[0].hook), ("d1", Hook::Clsact));
        assert!(foreign[0].name.contains("balancer_ask"), "{foreign:?}");
        drop(datapath);
        let unloaded = kernel::unload(bed.dir()).expect("unload");
        assert_eq!((unloaded.links.len(), unloaded.qdiscs.len()), (4, 0), "{unloaded:?}");
        assert!(qdiscs("d0").contains("clsact"));
        assert!(filters("d0").is_empty());
        assert!(filters("d1").contains("balancer_ask") && !filters("d1").contains("balancer_in"));
        drop(theirs);
    });
}

#[test]
fn foreign_filter_at_our_place_is_an_error_and_undoes_what_this_call_made() {
    let Some(root) = root_or_skip("kernel") else { return };
    let (bed, other, ns) = (Bed::new(), Bed::new(), namespace(root, &["d0", "d1"]));
    ns.run(|| {
        tc::qdisc_add_clsact("d1").expect("qdisc");
        let theirs = other.create(&small());
        let program = other.dir().join("progs/balancer_ask");
        let place = format!("pref {} handle 0xba1", 0x0ba1);
        tc(&format!("filter add dev d1 egress {place} bpf da object-pinned {}", program.display()));
        let mut datapath = bed.create(&small());
        let error = datapath.attach(&to(&["d0", "d1"]), CLSACT).expect_err("foreign");
        let KernelError::ForeignFilter { interface, direction, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((interface.as_str(), *direction), ("d1", "egress"));
        assert!(error.to_string().contains("tc filter del dev d1 egress"), "{error}");
        assert!(!qdiscs("d0").contains("clsact"), "d0 is as it was");
        assert!(!filters("d1").contains("balancer_in"), "{}", filters("d1"));
        assert!(filters("d1").contains("balancer_ask"));
        drop(theirs);
        assert!(datapath.links().expect("links").is_empty());
    });
}

#[test]
fn source_behind_a_host_route_is_bound_to_its_interface() {
    let Some(root) = root_or_skip("kernel") else { return };
    let (bed, ns) = (Bed::new(), namespace(root, &["d0", "d1", "d2"]));
    let client = |n: u8| std::net::IpAddr::from([10, 0, 0, n]);
    let own = |n: u16| Service {
        own: Some((client(n as u8), vec![(1, vec![real(90 + n)])])),
        ..service(n, &[1])
    };
    ns.run(|| {
        ns.ip(&[
            "route add 10.0.0.1/32 dev d0".into(),
            "route add 10.0.0.2/32 dev d1".into(),
            "route add 10.0.0.0/24 dev d0".into(),
            "route add 10.0.0.4/32 dev d2".into(),
            "route add default dev d2".into(),
        ])
        .expect("routes");
        let mut datapath = bed.create(&small());
        let world = resolved(&[own(1), own(2), own(3), own(4)], &[]);
        let tables = compiled(&mut datapath, &world);
        // d1 is not attached to, 10.0.0.3 has no route of its own, d2 is an uplink.
        let interfaces = ["d0".to_owned(), "d2".to_owned()];
        let options = PublishOptions { interfaces: &interfaces, ..plain() };
        datapath.publish(&tables, options).expect("publish");
        let index = nix::net::if_::if_nametoindex("d0").expect("index");
        let bound = |d: &Datapath| {
            let rows = d.sources().expect("sources");
            rows.iter().map(|r| (r.address, r.ifindex)).collect::<Vec<_>>()
        };
        let expected = [(1, index), (2, 0), (3, 0), (4, 0)].map(|(n, i)| (client(n), i));
        assert_eq!(bound(&datapath), expected);
        // Once attached, the interface need not be named.
        attach(&mut datapath, &["d0"], BEST);
        let tables = compiled(&mut datapath, &world);
        datapath.publish(&tables, plain()).expect("publish");
        assert_eq!(bound(&datapath), expected);
    });
}
