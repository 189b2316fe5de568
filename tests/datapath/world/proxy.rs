//! Services that the proxy has connections to.

use std::net::{SocketAddr, TcpListener};

use aya::maps::SockMap;
use balancer_ebpf::abi::{listener, map_names, route_flags, vip_flags};

use super::World;

/// The marks that tests have.
pub(crate) const HANDED: u32 = 0x10;
pub(crate) const OWN: u32 = 0x20;

impl World {
    /// Has the proxy take the connections of a service whose VIP, route and counter have this id.
    pub(crate) fn proxied(&mut self, id: u32) {
        for half in 0..2 {
            self.vip_entry(half, id, id, vip_flags::PROXIED);
        }
        self.change_route(id, |route| route.flags |= route_flags::PROXY);
        self.change_settings(|settings| {
            (settings.mark_handed, settings.mark_own) = (HANDED, OWN);
        });
    }

    /// Has the proxy listen in the calling thread's namespace, until this is dropped: one shard for
    /// connections to addresses like this one.
    pub(crate) fn listen(&mut self, like: SocketAddr) -> TcpListener {
        let at = if like.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = TcpListener::bind(at).expect("a listener");
        let map = self.loaded_mut().ebpf.map_mut(map_names::PROXY_LISTENERS).expect("the map");
        let mut map = SockMap::try_from(map).expect("a map of sockets");
        map.set(listener(0, like.is_ipv6()), &socket, 0).expect("an element");
        self.change_settings(|settings| settings.shards = 1);
        socket
    }
}
