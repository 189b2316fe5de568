//! Packets that do not fit, of clients and of the reals that answer them.

use balancer_ebpf::reason::Reason;
use harness::{Root, TunnelEnd, root_or_skip};

use super::{for_native, tunnel_end, tunnels_begin};
use crate::odd::{Bed, FAR, REALS, SMALL, VIPS, WEB, end, exchange_with, met};

const HOOKS: [&str; 3] = ["xdp:dsr-l2", "xdp:dsr-l2:generic", "xdp:dsr-ipip"];

/// A real with the addresses of both VIPs, behind a tunnel too.
fn bed(root: Root) -> (Bed, TunnelEnd) {
    let bed = Bed::new(root);
    bed.topology.offloads(false).expect("ethtool");
    for_native(&bed.topology);
    tunnels_begin(&bed.topology);
    let real = &bed.topology.host("bulk").ns;
    real.ip(&[
        "link set lo up".to_owned(),
        format!("addr add {}/32 dev lo", VIPS[0]),
        format!("addr add {}/128 dev lo nodad", VIPS[1]),
    ])
    .expect("the VIPs' addresses");
    let tunnel = tunnel_end(real);
    (bed, tunnel)
}

#[test]
fn client_learns_what_fits_on_the_way_to_the_real() {
    let Some(root) = root_or_skip("e2e") else { return };
    for hook in HOOKS {
        let (bed, _tunnel) = bed(root);
        // What a tunnel takes is to fit beside the smallest MTU of IPv6.
        let small = if hook.contains("ipip") { "1340" } else { SMALL };
        // Of a route's MTU that is not locked, Linux tells programs over IPv6 alone.
        let route = |real: &str| format!("route replace {real} dev v-bulk mtu lock {small}");
        bed.topology.node.ip(&REALS.map(route)).expect("small routes");
        let instance = bed.load_at(hook, REALS, 5000);
        let (web, real) = (&bed.topology.host("web").ns, &bed.topology.host("bulk").ns);
        for (family, address) in WEB.into_iter().enumerate() {
            let before = met(&instance, Reason::TooBig);
            exchange_with(family, (web, address), (real, end(VIPS[family], 5000)));
            assert!(met(&instance, Reason::TooBig) > before, "{address} was told, {hook}");
        }
    }
}

/// A router beyond the client's link tells the VIP, whose address the node has routed to itself.
#[test]
fn real_learns_what_fits_on_the_way_to_the_client() {
    let Some(root) = root_or_skip("e2e") else { return };
    for hook in HOOKS {
        let (bed, _tunnel) = bed(root);
        let far = bed.far_behind("web");
        let instance = bed.load_at(hook, REALS, 5000);
        let real = &bed.topology.host("bulk").ns;
        for (family, address) in FAR.into_iter().enumerate() {
            let before = met(&instance, Reason::IcmpError);
            exchange_with(family, (&far, address), (real, end(VIPS[family], 5000)));
            assert!(met(&instance, Reason::IcmpError) > before, "it was told, {address}, {hook}");
        }
    }
}
