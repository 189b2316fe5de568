//! Listeners of the proxy: the sockets that programs hand connections to, and what brings the
//! packets there.
//!
//! A packet that is handed over has the socket with it and a bit in its mark; a rule and a routing
//! table of ours deliver what has that bit as if its address were the node's ([`rules`]). The
//! programs find listeners in `PROXY_LISTENERS`. One that is closed leaves it by itself, and
//! then what a publish said holds ([`PublishOptions::l7_reset`](super::PublishOptions::l7_reset)).

mod rules;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapError, SockMap};
use balancer_ebpf::abi::{SHARDS_MAX, Settings, listener, map_names};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen,
        setsockopt, socket, sockopt,
    },
};

use super::{Datapath, KernelError, View, passed::Named};

/// How packets come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The bit of the mark of packets that are handed over.
    pub handed: u32,
    /// The bit of the mark of the proxy's own packets, which are never handed over.
    pub own: u32,
    /// The routing table that delivers what is handed over; nobody else uses it.
    pub table: u32,
}

/// What the proxy accepts connections from: for each shard a listener of each family. The address
/// that an accepted socket has is the VIP, its peer the client.
#[derive(Debug)]
pub struct Listeners {
    /// By shard.
    pub ipv4: Vec<TcpListener>,
    /// By shard; none where the node has no IPv6.
    pub ipv6: Vec<TcpListener>,
    /// For sockets that the proxy opens.
    pub upstream: UpstreamMark,
    /// Names of those that were given and go on.
    pub taken: Vec<String>,
    /// Names of those that were given and closed, and why.
    pub refused: Vec<(String, String)>,
}

/// Marks the proxy's own connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamMark(u32);

impl UpstreamMark {
    /// Has the programs leave alone what this socket sends, whatever VIP it is for. To be called
    /// before it connects.
    ///
    /// # Errors
    /// `CAP_NET_ADMIN` is missing.
    pub fn set(self, socket: &impl AsFd) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::Mark, &self.0)?)
    }
}

impl Listeners {
    /// Each with the name by which another process is given it.
    pub fn named<'a>(&'a self) -> impl Iterator<Item = (String, BorrowedFd<'a>)> {
        let of = |(ipv6, sockets): (bool, &'a Vec<TcpListener>)| {
            (0..).zip(sockets).map(move |(shard, socket)| (name(shard, ipv6), socket.as_fd()))
        };
        [(false, &self.ipv4), (true, &self.ipv6)].into_iter().flat_map(of)
    }

    /// Opens nonblocking listeners that nobody is handed to yet, in the calling thread's network
    /// namespace, but for those that are `given` and fit. Connections that they accept inherit that
    /// they are transparent, and the mark.
    ///
    /// # Errors
    /// A socket cannot be opened; that there is no IPv6 is none.
    fn open(shards: u32, delivery: &Delivery, mut given: Named) -> Result<Self, KernelError> {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        let mut open = |address: SocketAddr| {
            let one = |shard| {
                let name = name(shard, address.is_ipv6());
                let Some(at) = given.iter().position(|(known, _)| *known == name) else {
                    return transparent(address, delivery.own);
                };
                match fitting(given.swap_remove(at).1, address, delivery.own) {
                    Ok(listener) => {
                        taken.push(name);
                        Ok(listener)
                    }
                    Err(why) => {
                        refused.push((name, why));
                        transparent(address, delivery.own)
                    }
                }
            };
            (0..shards).map(one).collect::<Result<_, _>>()
        };
        let failed = |e: Errno| KernelError::system("opening a listener for the proxy", e.into());
        let ipv4 = open((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let ipv6 = match open((Ipv6Addr::LOCALHOST, 0).into()) {
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => Vec::new(),
            opened => opened.map_err(failed)?,
        };
        let more = |(name, _)| (name, format!("there are {shards} shards"));
        refused.extend(given.into_iter().map(more));
        Ok(Self { ipv4, ipv6, upstream: UpstreamMark(delivery.own), taken, refused })
    }
}

fn name(shard: u32, ipv6: bool) -> String {
    format!("balancer-http{}-{shard}", if ipv6 { 6 } else { 4 })
}

/// A listener of another process, where it is as [`transparent`] makes them; else what differs.
fn fitting(socket: OwnedFd, like: SocketAddr, mark: u32) -> Result<TcpListener, String> {
    let not_asked = |error: Errno| format!("it cannot be asked: {}", error.desc());
    let listens = getsockopt(&socket, sockopt::AcceptConn).map_err(not_asked)?;
    let kind = getsockopt(&socket, sockopt::SockType).map_err(not_asked)?;
    let listener = TcpListener::from(socket);
    let at = listener.local_addr().map_err(|error| format!("it has no address of IP: {error}"))?;
    if !listens || kind != SockType::Stream || at.ip() != like.ip() {
        return Err(format!("it does not listen at {} for TCP, but is at {at}", like.ip()));
    }
    if !getsockopt(&listener, sockopt::IpTransparent).map_err(not_asked)? {
        return Err("it is not transparent".to_owned());
    }
    let has = getsockopt(&listener, sockopt::Mark).map_err(not_asked)?;
    if has != mark {
        return Err(format!("its mark is {has:#x}, which was to be {mark:#x}"));
    }
    listener.set_nonblocking(true).map_err(|error| format!("it blocks: {error}"))?;
    Ok(listener)
}

/// A listener that takes packets for any address. No port is shared: Linux before 6.6 assigns no
/// packet to such a socket.
fn transparent(address: SocketAddr, mark: u32) -> Result<TcpListener, Errno> {
    let (family, any) = match address {
        SocketAddr::V4(_) => (AddressFamily::Inet, false),
        SocketAddr::V6(_) => (AddressFamily::Inet6, true),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    if any {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // Of both families: the flag is the socket's (net/ipv6/ipv6_sockglue.c hands SOL_IP on).
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

impl Datapath {
    /// Opens listeners and has the programs hand them the connections that are the proxy's. Those
    /// of an earlier call, or of another process, get no more; what they have they keep.
    ///
    /// `given`: listeners of an earlier call, which go on with whatever waits in their queues;
    /// those that do not fit are closed.
    ///
    /// Rules and routes are made in the calling thread's network namespace, which must be that of
    /// the interfaces attached to: elsewhere nothing is handed over.
    ///
    /// # Errors
    /// [`KernelError::Limit`] of too many shards; what the kernel says. The programs then hand over
    /// to whom they did before.
    pub fn listen(
        &mut self,
        shards: NonZeroU32,
        delivery: &Delivery,
        given: Named,
    ) -> Result<Listeners, KernelError> {
        let shards = shards.get();
        if shards > SHARDS_MAX {
            return Err(KernelError::Limit {
                setting: "shards of the proxy",
                value: shards.into(),
                why: format!("it may be at most {SHARDS_MAX}"),
            });
        }
        let listeners = Listeners::open(shards, delivery, given)?;
        rules::make(delivery, !listeners.ipv6.is_empty())?;
        let before: Settings = self.view.settings_words.read(0);
        let mut map = self.view.listeners()?;
        let write = |shards: u32| {
            let Delivery { handed: mark_handed, own: mark_own, table: proxy_table } = *delivery;
            let settings: Settings = self.view.settings_words.read(0);
            let settings = Settings { shards, mark_handed, mark_own, proxy_table, ..settings };
            self.view.settings_words.write(0, &settings);
        };
        // A packet that is handed over has the new mark from the first new listener on.
        write(before.shards);
        for shard in 0..shards {
            let at = shard as usize;
            for (ipv6, sockets) in [(false, &listeners.ipv4), (true, &listeners.ipv6)] {
                match sockets.get(at) {
                    Some(socket) => {
                        let taken = listeners.taken.contains(&name(shard, ipv6));
                        put(&mut map, listener(shard, ipv6), socket, taken)?;
                    }
                    None => clear(&mut map, listener(shard, ipv6))?,
                }
            }
        }
        write(shards);
        for shard in shards..SHARDS_MAX {
            clear(&mut map, listener(shard, false))?;
            clear(&mut map, listener(shard, true))?;
        }
        if let Some(old) = Delivery::of(&before).filter(|old| old != delivery) {
            rules::remove(&old, Some(delivery))?;
        }
        Ok(listeners)
    }
}

impl Datapath {
    /// Has the programs hand over nothing more; connections that were handed over stay, and so do
    /// handshakes under way. What a publish said of `l7_reset` holds then.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unlisten(&mut self) -> Result<(), KernelError> {
        let mut map = self.view.listeners()?;
        for shard in 0..SHARDS_MAX {
            clear(&mut map, listener(shard, false))?;
            clear(&mut map, listener(shard, true))?;
        }
        Ok(())
    }
}

/// Of `bpf(2)`: what is there stays.
const BPF_NOEXIST: u64 = 1;

/// Puts a listener in its place. One that was `taken` over from another process is there, unless the
/// map is another than it was: nobody but a holder of the right to write puts others there. It must
/// not take its own place: a kernel without 75e072a390da (Linux 6.13, and 6.1.121, 6.6.67, 6.12.6)
/// would not notice its end any more.
fn put(
    map: &mut SockMap<aya::maps::MapData>,
    index: u32,
    socket: &TcpListener,
    taken: bool,
) -> Result<(), KernelError> {
    let flags = if taken { BPF_NOEXIST } else { 0 };
    match map.set(index, socket, flags) {
        Ok(()) => Ok(()),
        Err(MapError::SyscallError(e))
            if taken && e.io_error.kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        Err(e) => Err(super::map_failed(map_names::PROXY_LISTENERS, e)),
    }
}

/// Nobody listens there; whether somebody did.
fn clear(map: &mut SockMap<aya::maps::MapData>, index: u32) -> Result<(), KernelError> {
    match map.clear_index(&index) {
        Ok(()) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(e) => Err(super::map_failed(map_names::PROXY_LISTENERS, e)),
    }
}

impl Delivery {
    /// What the programs were told; `None`: nobody has listened yet.
    fn of(settings: &Settings) -> Option<Self> {
        let Settings { mark_handed: handed, mark_own: own, proxy_table: table, .. } = *settings;
        (table != 0).then_some(Self { handed, own, table })
    }
}

impl View {
    fn listeners(&self) -> Result<SockMap<aya::maps::MapData>, KernelError> {
        let name = map_names::PROXY_LISTENERS;
        SockMap::try_from(Map::SockMap(self.pinned(name)?)).map_err(|e| super::map_failed(name, e))
    }

    /// How packets come to the proxy; `None`: none has listened yet.
    pub fn delivery(&self) -> Option<Delivery> {
        Delivery::of(&self.settings_words.read(0))
    }

    /// Takes away the rules and routes that [`Datapath::listen`] made; what they were, for people.
    ///
    /// # Errors
    /// rtnetlink refuses.
    pub(super) fn undeliver(&self) -> Result<Vec<String>, KernelError> {
        self.delivery().map_or(Ok(Vec::new()), |delivery| rules::remove(&delivery, None))
    }
}
