//! The programs as loaded by the kernel's verifier, and maps filled by hand: what a packet
//! meets is what the test wrote, not what user space would compile.

pub(crate) mod edge;
mod events;
mod flows;
mod guard;
mod hook;
mod pool;
pub(crate) mod proxy;
mod reset;
mod runs;

use std::net::{IpAddr, SocketAddr};

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{SchedClassifier, TcAttachType, tc::SchedClassifierLinkId},
};
use balancer_ebpf::{
    abi::{
        ClassVip, Counter, PortUse, Real, RouteEntry, RunWord, Settings, SourceEntry, Table,
        TargetWord, VipEntry, VipKey4, VipKey6, map_names, pick, port_bit, route_kind,
    },
    reason::{Fate, Reason},
};
use balancer_user::resolve::VipKey;
pub(crate) use flows::{FORWARD, FlowFound, Flows, REPLY, fresh_port, key4, key6};
pub(crate) use guard::pin_to_one_cpu;
use harness::{
    Root, Segment,
    packet::{assert_same, verify_checksums},
};
pub(crate) use hook::Hook;
use pool::{Loaded, Parameters};
pub(crate) use runs::TestRuns;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Capacity of one half of each two-half array.
pub(crate) const HALF: u32 = 64;
/// Jiffies a second, as the programs are told: many more than there are, so that no time passes for
/// them but what a test says.
pub(crate) const HZ: u32 = 10_000;
/// The interface of test runs without a context: the loopback.
pub(crate) const LOOPBACK: u32 = 1;

pub(crate) const TC_ACT_UNSPEC: i32 = -1;
pub(crate) const TC_ACT_SHOT: i32 = 2;
pub(crate) const TC_ACT_REDIRECT: i32 = 7;
pub(crate) const XDP_DROP: i32 = 1;
pub(crate) const XDP_PASS: i32 = 2;
pub(crate) const XDP_TX: i32 = 3;
pub(crate) const XDP_REDIRECT: i32 = 4;

/// What became of a packet.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The reason counted, or returned by [`Hook::Ask`].
    pub(crate) reason: Reason,
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
}

/// Loaded programs, and their maps as this test fills them.
pub(crate) struct World {
    /// There until the world is dropped.
    loaded: Option<Loaded>,
    words: u32,
    next_vip: u32,
    /// The interface of test runs, in the namespace of the thread that makes them.
    pub(crate) interface: u32,
    /// Bytes of payload in each packet that a frame stands for; 0: it stands for itself.
    pub(crate) segment: u32,
    /// Mark of the packets of test runs.
    pub(crate) mark: u32,
    attached: Vec<(&'static str, SchedClassifierLinkId)>,
}

fn array<const N: usize>(value: &(impl IntoBytes + Immutable)) -> [u8; N] {
    value.as_bytes().try_into().expect("the size named in the type")
}

fn value<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("the size of the type")
}

impl World {
    /// The embedded object and empty maps. `None` where the privileges are missing and may be.
    ///
    /// # Panics
    /// If the verifier refuses a program: with the telling lines of its log.
    pub(crate) fn new() -> Option<Self> {
        Self::with_flows(1024)
    }

    /// A world whose flow maps hold `flows` each.
    pub(crate) fn with_flows(flows: u32) -> Option<Self> {
        let _root: Root = harness::root_or_skip("datapath")?;
        Some(Self::of(Loaded::take(Parameters { flows, one_half_open: false })))
    }

    /// A world whose map of half-open IPv4 flows is a plain hash map with room for one entry, so
    /// that the second insertion is refused. (An LRU map evicts instead.)
    pub(crate) fn with_room_for_one_flow() -> Option<Self> {
        let _root: Root = harness::root_or_skip("datapath")?;
        Some(Self::of(Loaded::take(Parameters { flows: 1024, one_half_open: true })))
    }

    /// Fills in what every test relies on.
    fn of(loaded: Loaded) -> Self {
        let mut world = Self {
            loaded: Some(loaded),
            words: 0,
            next_vip: 1,
            interface: LOOPBACK,
            segment: 0,
            mark: 0,
            attached: Vec::new(),
        };
        world.settings(u64::MAX);
        world
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("there until the drop")
    }

    fn loaded_mut(&mut self) -> &mut Loaded {
        self.loaded.as_mut().expect("there until the drop")
    }

    fn program(&mut self, name: &str) -> &mut SchedClassifier {
        let program = self.loaded_mut().ebpf.program_mut(name).expect("in the object");
        program.try_into().expect("a classifier")
    }

    fn array<const N: usize>(&mut self, name: &str) -> Array<&mut MapData, [u8; N]> {
        self.loaded_mut().ebpf.map_mut(name).expect(name).try_into().expect("an array of this size")
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.loaded_mut().ebpf.map_mut(name).expect(name).try_into().expect("a map of these sizes")
    }

    /// Sets how long gone reals keep their flows.
    pub(crate) fn settings(&mut self, gone_reset_ns: u64) {
        let settings = Settings { gone_reset_ns, hz: HZ, ..Default::default() };
        self.array::<{ size_of::<Settings>() }>(map_names::SETTINGS)
            .set(0, array(&settings), 0)
            .expect("SETTINGS");
    }

    /// Publishes: `epoch` is the number that packets read from now on.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        self.array::<8>(map_names::EPOCH).set(0, epoch.to_ne_bytes(), 0).expect("EPOCH");
    }

    /// Sets a port's bit.
    pub(crate) fn port(&mut self, port: u16, used: PortUse) {
        let (word, bit) = port_bit(port, used);
        let mut ports = self.array::<8>(map_names::PORTS);
        let old = u64::from_ne_bytes(ports.get(&word, 0).expect("PORTS"));
        ports.set(word, (old | bit).to_ne_bytes(), 0).expect("PORTS");
    }

    /// Writes a real and sets its port's bit.
    pub(crate) fn real(&mut self, id: u32, end: &str, generation: u32) {
        let end: SocketAddr = end.parse().expect("an address and a port");
        let mut real = Real { port: end.port().to_be_bytes(), generation, ..Default::default() };
        match end.ip() {
            IpAddr::V4(ip) => {
                real.family = 4;
                real.addr[..4].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                real.family = 6;
                real.addr = ip.octets();
            }
        }
        self.put_real(id, &real);
        self.port(end.port(), PortUse::Real);
    }

    pub(crate) fn put_real(&mut self, id: u32, real: &Real) {
        self.array::<40>(map_names::REALS).set(id, array(real), 0).expect("REALS");
    }

    pub(crate) fn change_real(&mut self, id: u32, change: impl FnOnce(&mut Real)) {
        let mut real: Real = value(&self.array::<40>(map_names::REALS).get(&id, 0).expect("REALS"));
        change(&mut real);
        self.put_real(id, &real);
    }

    /// Names a VIP (of UDP with `/udp` at its end) in the dictionary and sets its port's bit; its id.
    pub(crate) fn vip(&mut self, end: &str) -> u32 {
        let key: VipKey = end.parse().expect("an address and a port");
        let id = self.next_vip;
        self.next_vip += 1;
        let (port, proto) = (key.addr.port().to_be_bytes(), key.protocol.number());
        match key.addr.ip() {
            IpAddr::V4(ip) => {
                self.hash::<[u8; 4], u32>(map_names::VIP_ADDRESSES4)
                    .insert(ip.octets(), 1, 0)
                    .expect("an address");
                let key = VipKey4 { addr: ip.octets(), port, proto, zero: 0 };
                self.hash::<[u8; 8], u32>(map_names::VIP_IDS4).insert(array(&key), id, 0)
            }
            IpAddr::V6(ip) => {
                self.hash::<[u8; 16], u32>(map_names::VIP_ADDRESSES6)
                    .insert(ip.octets(), 1, 0)
                    .expect("an address");
                let key = VipKey6 { addr: ip.octets(), port, proto, zero: 0 };
                self.hash::<[u8; 20], u32>(map_names::VIP_IDS6).insert(array(&key), id, 0)
            }
        }
        .expect("a VIP");
        self.port(key.addr.port(), PortUse::Vip);
        id
    }

    /// Writes what one half says of a VIP.
    pub(crate) fn vip_entry(&mut self, half: u32, id: u32, route: u32, flags: u32) {
        let entry = VipEntry { route, flags };
        self.array::<8>(map_names::VIPS).set(half * HALF + id, array(&entry), 0).expect("VIPS");
    }

    /// Names a source, and writes what one half says of it.
    pub(crate) fn source(&mut self, half: u32, addr: &str, id: u32, class: u32, ifindex: u32) {
        match addr.parse().expect("an address") {
            IpAddr::V4(ip) => {
                self.hash::<[u8; 4], u32>(map_names::SOURCE_IDS4).insert(ip.octets(), id, 0)
            }
            IpAddr::V6(ip) => {
                self.hash::<[u8; 16], u32>(map_names::SOURCE_IDS6).insert(ip.octets(), id, 0)
            }
        }
        .expect("a source");
        let entry = SourceEntry { class, ifindex };
        let index = half * HALF + id;
        self.array::<8>(map_names::SOURCES).set(index, array(&entry), 0).expect("SOURCES");
    }

    pub(crate) fn class_route(&mut self, class: u32, vip: u32, route: u32) {
        let key = ClassVip { class, vip };
        self.hash::<[u8; 8], u32>(map_names::CLASS_ROUTES)
            .insert(array(&key), route, 0)
            .expect("CLASS_ROUTES");
    }

    /// Writes what one half says of a route.
    pub(crate) fn route(&mut self, half: u32, id: u32, entry: &RouteEntry) {
        self.array::<56>(map_names::ROUTES).set(half * HALF + id, array(entry), 0).expect("ROUTES");
    }

    /// Writes a table of these targets; `slots` are their ordinals.
    pub(crate) fn table(
        &mut self,
        runs: &[RunWord],
        targets: &[TargetWord],
        slots: &[u16],
    ) -> Table {
        let table = Table {
            offset: self.words,
            slots: slots.len() as u32,
            targets: targets.len() as u32,
            backends: runs.len() as u32,
        };
        let mut words: Vec<u64> = runs.iter().map(|run| run.pack()).collect();
        words.extend(targets.iter().map(|target| target.pack()));
        words.extend(slots.chunks(4).map(|four| {
            four.iter().enumerate().map(|(i, slot)| u64::from(*slot) << (16 * i)).sum::<u64>()
        }));
        assert_eq!(words.len() as u32, table.words());
        for word in words {
            let at = self.words;
            self.loaded_mut().chunk.set(at, word, 0).expect("the arena");
            self.words += 1;
        }
        table
    }

    /// A table in which each of these reals, all of one backend, has the same share.
    pub(crate) fn equal_table(&mut self, reals: &[u32], slots: u16) -> Table {
        let targets: Vec<_> = reals.iter().map(|&real| TargetWord { real, backend: 0 }).collect();
        let slots: Vec<u16> = (0..slots).map(|slot| slot % reals.len() as u16).collect();
        let run = RunWord { first: 0, slots: slots.len() as u32 };
        self.table(&[run], &targets, &slots)
    }

    /// A VIP all of whose clients get one of these reals by hash, in both halves: VIP id, route
    /// id and counter id are the number returned.
    pub(crate) fn service(&mut self, vip: &str, reals: &[u32]) -> u32 {
        let id = self.vip(vip);
        let table = self.equal_table(reals, 16);
        let entry = RouteEntry {
            kind: route_kind::TABLE,
            pick: pick::HASH,
            choices: 2,
            counters: id,
            table,
            ..Default::default()
        };
        for half in 0..2 {
            self.route(half, id, &entry);
            self.vip_entry(half, id, id, 0);
        }
        id
    }

    /// The first half's entry of a route, changed in both halves.
    pub(crate) fn change_route(&mut self, id: u32, change: impl FnOnce(&mut RouteEntry)) {
        let mut entry: RouteEntry =
            value(&self.array::<56>(map_names::ROUTES).get(&id, 0).expect("ROUTES"));
        change(&mut entry);
        for half in 0..2 {
            self.route(half, id, &entry);
        }
    }

    /// The counter of a backend, summed over the CPUs.
    pub(crate) fn counter(&self, id: u32) -> Counter {
        let counters: PerCpuArray<_, [u64; 5]> = self
            .loaded()
            .ebpf
            .map(map_names::COUNTERS)
            .expect("COUNTERS")
            .try_into()
            .expect("per CPU");
        let mut sum = [0; 5];
        for cpu in counters.get(&id, 0).expect("a counter").iter() {
            for (sum, cpu) in sum.iter_mut().zip(cpu) {
                *sum += cpu;
            }
        }
        value(sum.as_bytes())
    }

    pub(crate) fn active(&mut self, real: u32) -> u64 {
        u64::from_ne_bytes(self.array(map_names::ACTIVE).get(&real, 0).expect("ACTIVE"))
    }

    pub(crate) fn set_active(&mut self, real: u32, connections: u64) {
        self.array::<8>(map_names::ACTIVE).set(real, connections.to_ne_bytes(), 0).expect("ACTIVE");
    }

    /// Test-runs a frame.
    pub(crate) fn run_frame(&mut self, hook: Hook, frame: &[u8]) -> Outcome {
        TestRuns::new(self).run(self, hook, frame)
    }

    /// Sends a packet in and says why it met its fate; one that is to pass or to drop must be
    /// untouched.
    #[track_caller]
    pub(crate) fn reason(&mut self, hook: Hook, segment: &Segment) -> Reason {
        let frame = segment.bytes();
        let outcome = self.run_frame(hook, &frame);
        match outcome.reason.fate() {
            Fate::Pass | Fate::Drop => {
                assert_same(outcome.reason.name(), &frame, &outcome.packet);
            }
            Fate::Forward | Fate::Reset | Fate::Answer => {
                verify_checksums(&outcome.packet)
                    .unwrap_or_else(|wrong| panic!("{}: {wrong}", outcome.reason.name()));
            }
        }
        outcome.reason
    }

    /// Sends a packet in that must meet this reason and come out as `expected`; for the stack,
    /// if it is sent on.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        hook: Hook,
        sent: &Segment,
        reason: Reason,
        expected: &Segment,
    ) {
        let answered = hook != Hook::Ask && reason.fate() == Fate::Reset;
        let verdict = if answered { TC_ACT_REDIRECT } else { TC_ACT_UNSPEC };
        self.expect_verdict(hook, sent, (reason, verdict), expected);
    }

    /// Sends a packet in that must meet this reason and come out as `expected`, past the stack.
    #[track_caller]
    pub(crate) fn expect_redirected(
        &mut self,
        hook: Hook,
        sent: &Segment,
        reason: Reason,
        expected: &Segment,
    ) {
        self.expect_verdict(hook, sent, (reason, TC_ACT_REDIRECT), expected);
    }

    #[track_caller]
    fn expect_verdict(
        &mut self,
        hook: Hook,
        sent: &Segment,
        told: (Reason, i32),
        expected: &Segment,
    ) {
        let (reason, _) = told;
        let outcome = self.run_frame(hook, &sent.bytes());
        assert_eq!((outcome.reason, outcome.verdict), told, "{sent:?}");
        assert_same(reason.name(), &expected.bytes(), &outcome.packet);
        verify_checksums(&outcome.packet).expect("recomputed");
    }

    /// Sends a packet in that must meet this reason, and says to whom it was sent on.
    #[track_caller]
    pub(crate) fn forwarded(&mut self, sent: &Segment, reason: Reason) -> SocketAddr {
        let outcome = self.run_frame(Hook::Ingress, &sent.bytes());
        assert_eq!((outcome.reason, outcome.verdict), (reason, TC_ACT_UNSPEC), "{sent:?}");
        let to = destination(&outcome.packet, sent);
        let expected = Segment { dst: to, ..sent.clone() };
        assert_same(reason.name(), &expected.bytes(), &outcome.packet);
        to
    }

    /// The handshake of a connection; the real that was picked.
    #[track_caller]
    pub(crate) fn connect(&mut self, client: &str, vip: &str) -> SocketAddr {
        use harness::packet::flags::{ACK, SYN};
        let segment = Segment::new(client, vip);
        let real = self.forwarded(&segment.clone().flags(SYN), Reason::NewFlow);
        let reply = Segment::new(&real.to_string(), client);
        assert_eq!(self.reason(Hook::Egress, &reply.flags(SYN | ACK)), Reason::Reply);
        let ack = segment.flags(ACK);
        assert_eq!(self.forwarded(&ack, Reason::Established), real);
        real
    }
}

/// Where a frame, as long as that of `sent`, is addressed to.
pub(crate) fn destination(frame: &[u8], sent: &Segment) -> SocketAddr {
    let (ip, tcp) = (sent.ip_at(), sent.tcp_at());
    let port = u16::from_be_bytes([frame[tcp + 2], frame[tcp + 3]]);
    let addr: IpAddr = if sent.src.is_ipv4() {
        <[u8; 4]>::try_from(&frame[ip + 16..ip + 20]).expect("four bytes").into()
    } else {
        <[u8; 16]>::try_from(&frame[ip + 24..ip + 40]).expect("sixteen bytes").into()
    };
    SocketAddr::new(addr, port)
}

impl World {
    /// Attaches programs to an interface of the calling thread's namespace, in which the world must be
    /// dropped too.
    pub(crate) fn attach(&mut self, hooks: &[Hook], interface: &str) {
        // Before Linux 6.6 the programs hang on this queueing discipline.
        aya::programs::tc::qdisc_add_clsact(interface).expect("a fresh interface");
        for hook in hooks {
            let kind = match hook {
                Hook::Ingress => TcAttachType::Ingress,
                Hook::Egress => TcAttachType::Egress,
                other => panic!("{other:?} is not attached"),
            };
            let attached = self.program(hook.program()).attach(interface, kind);
            self.attached.push((hook.program(), attached.expect("nothing else is attached")));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for (program, attached) in std::mem::take(&mut self.attached) {
            self.program(program).detach(attached).expect("attached by this test");
        }
        if let Some(loaded) = self.loaded.take() {
            loaded.give_back();
        }
    }
}
