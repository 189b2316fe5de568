//! XDP programs on interfaces: links, drivers without XDP, programs of others.

use balancer_user::kernel::{
    self, AttachOptions, Attached, Attachment, Datapath, Direction, Hook, KernelError, XdpMode,
    XdpOptions,
};
use harness::{NetNs, hooks, root_or_skip};

use super::bed::{Bed, small};

const NATIVE: XdpOptions = XdpOptions { mode: XdpMode::Nat, generic: false };
const GENERIC: XdpOptions = XdpOptions { generic: true, ..NATIVE };

fn namespace(root: harness::Root) -> NetNs {
    let ns = NetNs::new(root, "edge").expect("namespace");
    ns.ip(&[
        "link add d0 type veth peer name p0".to_owned(),
        "link set d0 up".to_owned(),
        "link set p0 up".to_owned(),
    ])
    .expect("veth");
    ns
}

fn attach(datapath: &mut Datapath, at: Attachment) -> Result<Attached, KernelError> {
    datapath.attach(&[at], AttachOptions::default())
}

/// Indexes of the interfaces that take frames.
fn devices(datapath: &Datapath) -> Vec<u32> {
    let devices = datapath.devices().expect("a map").into_iter();
    devices.filter(|(_, device)| device.takes_frames != 0).map(|(index, _)| index).collect()
}

/// The id of the XDP program on an interface of this namespace.
fn xdp_on(name: &str) -> Option<u32> {
    let interfaces = kernel::interfaces().expect("interfaces");
    interfaces.into_iter().find(|i| i.name == name).expect(name).xdp.map(|xdp| xdp.program)
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("an interface")
}

#[test]
fn xdp_link_is_made_once_adopted_later_and_gone_with_unload() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        let first = attach(&mut datapath, Attachment::xdp("d0", NATIVE)).expect("attach");
        assert_eq!((first.made.len(), first.adopted.len()), (3, 0), "TC and XDP: {first:?}");
        assert!(first.warnings.iter().any(|w| w.contains("veth d0")), "{:?}", first.warnings);
        let program = xdp_on("d0").expect("a program");
        assert_eq!(devices(&datapath), [index("d0")]);
        drop(datapath);
        assert_eq!(xdp_on("d0"), Some(program), "the program stays when the process goes");
        let mut datapath = Datapath::open(&bed.lock()).expect("open");
        let again = attach(&mut datapath, Attachment::xdp("d0", NATIVE)).expect("attach");
        assert_eq!((again.made.len(), again.adopted.len()), (0, 3), "{again:?}");
        let links = datapath.links().expect("links");
        let edge = links.iter().find(|link| link.hook == Hook::Xdp).expect("an XDP link");
        assert_eq!((edge.direction, edge.program), (Direction::Ingress, program));
        assert_eq!((edge.mode, edge.live), (Some(XdpMode::Nat), true));
        assert_eq!(datapath.foreign_programs().expect("foreign"), []);
        drop(datapath);
        let unloaded = kernel::unload(bed.dir()).expect("unload");
        assert!(unloaded.links.iter().any(|l| l == "d0 ingress (xdp)"), "{:?}", unloaded.links);
        assert_eq!(xdp_on("d0"), None);
        assert_eq!(hooks::programs("d0").expect("hooks").len(), 0);
    });
}

#[test]
fn what_is_asked_for_last_counts() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        for (at, hook) in [
            (Attachment::xdp("d0", NATIVE), Some(Hook::Xdp)),
            (Attachment::tc("d0"), None),
            (Attachment::xdp("d0", GENERIC), Some(Hook::XdpGeneric)),
            (Attachment::xdp("d0", NATIVE), Some(Hook::Xdp)),
        ] {
            attach(&mut datapath, at.clone()).unwrap_or_else(|e| panic!("{at:?}: {e}"));
            let links = datapath.links().expect("links");
            let xdp = |link: &&kernel::Link| matches!(link.hook, Hook::Xdp | Hook::XdpGeneric);
            let found: Vec<_> =
                links.iter().filter(xdp).map(|link| (link.hook, link.live)).collect();
            assert_eq!(found, hook.map(|hook| (hook, true)).into_iter().collect::<Vec<_>>());
            assert_eq!(xdp_on("d0").is_some(), hook.is_some(), "{at:?}");
            let native = hook == Some(Hook::Xdp);
            assert_eq!(
                devices(&datapath),
                if native { vec![index("d0")] } else { vec![] },
                "{at:?}"
            );
        }
        datapath.detach("d0").expect("detach");
        assert_eq!((xdp_on("d0"), datapath.links().expect("links")), (None, vec![]));
        assert_eq!(datapath.devices().expect("a map"), []);
    });
}

#[test]
fn mode_is_changed_under_traffic_and_tunnels_begin_at_the_interface() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        let mut last = None;
        for mode in XdpMode::ALL {
            let options = XdpOptions { mode, generic: false };
            let attached = attach(&mut datapath, Attachment::xdp("d0", options)).expect("attach");
            let told = attached.warnings.iter().any(|w| w.contains("no IPv4 address"));
            assert_eq!(told, mode == XdpMode::DsrIpip, "{:?}", attached.warnings);
            let links = datapath.links().expect("links");
            let edge = links.iter().find(|link| link.hook == Hook::Xdp).expect("an XDP link");
            assert_eq!((edge.mode, edge.live), (Some(mode), true));
            assert_ne!(last.replace(edge.program), Some(edge.program), "another program");
            let one_way = datapath.one_way_interfaces().expect("links");
            assert_eq!(one_way.is_empty(), mode == XdpMode::Nat, "{one_way:?}");
        }
        ns.ip(&[
            "addr add 169.254.7.7/16 dev d0".to_owned(),
            "addr add 10.0.9.1/24 dev d0".to_owned(),
            "addr add fd00:9::1/64 dev d0 nodad".to_owned(),
        ])
        .expect("addresses");
        datapath.forget_gone_interfaces().expect("pins");
        let devices = datapath.devices().expect("a map");
        let [(at, device)] = devices[..] else { panic!("{devices:?}") };
        assert_eq!((at, device.takes_frames, device.source4), (index("d0"), 1, [10, 0, 9, 1]));
        let six: std::net::Ipv6Addr = "fd00:9::1".parse().expect("an address");
        assert_eq!(device.source6, six.octets());
    });
}

#[test]
fn interface_without_native_xdp_is_refused_unless_generic_is_asked_for() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        let refused = attach(&mut datapath, Attachment::xdp("lo", NATIVE)).expect_err("no driver");
        assert!(matches!(&refused, KernelError::NoNativeXdp { .. }), "{refused}");
        let told = refused.to_string();
        assert!(told.contains("interface lo") && told.contains("lo=xdp:generic"), "{told}");
        let dsr = XdpOptions { mode: XdpMode::DsrL2, ..NATIVE };
        let refused = attach(&mut datapath, Attachment::xdp("lo", dsr)).expect_err("no driver");
        assert!(refused.to_string().contains("lo=xdp:dsr-l2:generic"), "{refused}");
        assert_eq!(datapath.links().expect("links"), [], "what was made is undone");
        attach(&mut datapath, Attachment::xdp("lo", GENERIC)).expect("attach");
        assert!(xdp_on("lo").is_some());
        datapath.detach("lo").expect("detach");
        assert_eq!(xdp_on("lo"), None);
    });
}

#[test]
fn foreign_xdp_program_is_reported_and_stays() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        // Another balancer is somebody else, too.
        let (theirs, ours) = (Bed::new(), Bed::new());
        let mut foreign = theirs.create(&small());
        attach(&mut foreign, Attachment::xdp("d0", NATIVE)).expect("attach");
        let program = xdp_on("d0").expect("a program");
        let before = hooks::programs("d0").expect("hooks");
        let mut datapath = ours.create(&small());
        for options in [NATIVE, GENERIC] {
            let refused = attach(&mut datapath, Attachment::xdp("d0", options)).expect_err("full");
            let told = refused.to_string();
            assert!(matches!(refused, KernelError::ForeignXdp { .. }), "{told}");
            assert!(told.contains(&format!("(id {program})")), "{told}");
        }
        assert_eq!(hooks::programs("d0").expect("hooks"), before, "nothing came, nothing went");
        let attached = attach(&mut datapath, Attachment::tc("d0")).expect("TC has room");
        let reported = attached.foreign.iter().find(|f| f.hook == Hook::Xdp).expect("reported");
        assert_eq!((reported.program, reported.interface.as_str()), (program, "d0"));
        drop(datapath);
        kernel::unload(ours.dir()).expect("unload");
        assert_eq!(xdp_on("d0"), Some(program));
    });
}

#[test]
fn interfaces_that_went_are_forgotten() {
    let Some(root) = root_or_skip("kernel") else { return };
    let ns = namespace(root);
    ns.run(|| {
        let bed = Bed::new();
        let mut datapath = bed.create(&small());
        attach(&mut datapath, Attachment::xdp("d0", NATIVE)).expect("attach");
        ns.ip(&["link del d0".to_owned()]).expect("ip");
        assert_eq!(datapath.forget_gone_interfaces().expect("pins"), ["d0"]);
        assert_eq!(datapath.links().expect("links"), []);
        assert_eq!(datapath.devices().expect("a map"), []);
    });
}
