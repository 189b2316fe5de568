//! The datapath under test: the release object with a small published set in its maps.
//!
//! The maps are filled directly, so that the figures depend on the programs alone. Every client
//! is a source of class 1 and every VIP has another route for that class: a new flow asks every
//! dictionary there is.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray},
    programs::TestRunOptions,
};
use balancer_ebpf::{
    abi::{
        self, CHUNK_WORDS, ClassVip, Device, HopKey, Hops, ID_FIRST, NextHop, PortUse, REAL_FIRST,
        Real, RouteEntry, Settings, SourceEntry, TCP, Table, TargetWord, VipEntry, VipKey4,
        VipKey6, global_names, map_names, pick, port_bit, program_names, route_kind,
    },
    reason::Reason,
};
use harness::Uplink;
use nix::time::{ClockId, clock_getres};
use zerocopy::IntoBytes;

use crate::{
    cases::{Case, Size},
    driver::{self, Driver, Target, program},
    frames::{self, Kind, Packet},
    step,
};

/// Names another object to measure, such as the one before a change.
const OBJECT: &str = "BALANCER_BENCH_OBJECT";
/// `BPF_F_MMAPABLE`, which the arena's template has.
const MMAPABLE: u32 = 1 << 10;
/// The class of every client.
const CLASS: u32 = 1;
const VIP_PORT: u16 = 80;
const REAL_PORT: u16 = 8080;

/// A VIP with two backends of weights 90 and 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Tells addresses and ids of one service from another's.
    number: u8,
    /// Reals of both backends together.
    reals: u16,
    /// Slots of its table.
    slots: u32,
}

/// Two reals, 90/10.
pub(crate) const TWO_REALS: Service = Service { number: 1, reals: 2, slots: 251 };
/// A hundred reals, on the rung that has 100 slots for each and the smallest share within 1 %.
pub(crate) const HUNDRED_REALS: Service = Service { number: 2, reals: 100, slots: 16_381 };
/// One real, which answers all clients.
pub(crate) const ONE_REAL: Service = Service { number: 3, reals: 1, slots: 251 };
const SERVICES: [Service; 3] = [TWO_REALS, HUNDRED_REALS, ONE_REAL];

/// Address family of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Service {
    pub(crate) fn vip(&self, family: Family) -> SocketAddr {
        let addr: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(240, 0, 0, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd62, 0x616c, 0, 0, 0, 0, 0, self.number.into()).into(),
        };
        SocketAddr::new(addr, VIP_PORT)
    }

    pub(crate) fn real(&self, family: Family, real: u16) -> SocketAddr {
        let addr: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(10, 200, self.number, real as u8 + 1).into(),
            Family::V6 => {
                Ipv6Addr::new(0xfd00, 200, 0, 0, 0, 0, self.number.into(), real + 1).into()
            }
        };
        SocketAddr::new(addr, REAL_PORT)
    }

    /// VIP id, route id and a range of 200 real ids follow from the number.
    fn id(&self, family: Family) -> u32 {
        u32::from(self.number) * 2 + u32::from(family == Family::V6)
    }
    fn first_real(&self, family: Family) -> u32 {
        REAL_FIRST + 128 * (self.id(family) - 2)
    }
}

/// The datapaths that the cases need, each loaded if one does.
pub(crate) struct Worlds {
    default: Option<World>,
    large: Option<World>,
    large_reply: Option<World>,
}

impl Worlds {
    /// `uplink`: the interface that the XDP program may send to.
    pub(crate) fn load(cases: &[(usize, &Case)], uplink: u32) -> Result<Self> {
        let load = |size: Size| -> Result<Option<World>> {
            let clients: Vec<(IpAddr, u32)> = cases
                .iter()
                .filter(|(_, case)| case.size == size)
                .map(|(number, case)| (case.client(*number), case.flows))
                .collect();
            if clients.is_empty() {
                return Ok(None);
            }
            World::load(size, &clients, uplink).map(Some)
        };
        Ok(Self {
            default: load(Size::Default)?,
            large: load(Size::Large)?,
            large_reply: load(Size::LargeReply)?,
        })
    }

    pub(crate) fn of(&mut self, case: &Case) -> Result<&mut World> {
        let world = match case.size {
            Size::Default => self.default.as_mut(),
            Size::Large => self.large.as_mut(),
            Size::LargeReply => self.large_reply.as_mut(),
        };
        world.context("this datapath was not loaded")
    }
}

/// A loaded datapath and a driver for it.
pub(crate) struct World {
    ebpf: Ebpf,
    driver: Driver,
}

impl World {
    /// Loads the object and fills its maps; `clients`: first addresses and numbers of flows.
    fn load(size: Size, clients: &[(IpAddr, u32)], uplink: u32) -> Result<Self> {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?.tv_nsec();
        let hz = u32::try_from(1_000_000_000 / tick.max(1))?;
        let (flows, half_open) = size.entries();
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .override_global(global_names::HZ, &hz, true)
            .map_max_entries(map_names::REALS, 2048)
            .map_max_entries(map_names::ACTIVE, 2048)
            .map_max_entries(map_names::FLOWS4, flows)
            .map_max_entries(map_names::FLOWS6, flows)
            .map_max_entries(map_names::HALF_OPEN4, half_open)
            .map_max_entries(map_names::HALF_OPEN6, half_open);
        let mut ebpf = match env::var_os(OBJECT) {
            Some(file) => {
                let object = fs::read(&file);
                loader.load(&object.with_context(|| format!("{OBJECT}={}", file.display()))?)?
            }
            None => loader.load(balancer_user::kernel::object::datapath()?)?,
        };
        let mut loaded = |name| {
            driver::load(program(&mut ebpf, name)?)?;
            driver::fd(&mut ebpf, name)
        };
        let ingress = loaded(program_names::INGRESS)?;
        let egress = loaded(program_names::EGRESS)?;
        let edge = loaded(program_names::XDP_NAT)?;
        let driver = Driver::load(&ingress, &egress, &edge)?;
        let mut world = Self { ebpf, driver };
        let device = Device { takes_frames: 1, ..Device::default() };
        let device: [u8; size_of::<Device>()] = zerocopy::transmute!(device);
        world.insert(map_names::DEVICES, uplink, device)?;
        world.keep_hops(uplink)?;
        world.fill(hz, clients)?;
        Ok(world)
    }

    /// Does what a running agent does: flows may remember their next hop. An object of another
    /// version, which is measured beside ours, may have none of it.
    fn keep_hops(&mut self, uplink: u32) -> Result<()> {
        if self.ebpf.map(map_names::HOPS).is_none() {
            return Ok(());
        }
        let key = HopKey { to: Uplink::NEXT, from: Uplink::OWN, interface: uplink };
        self.set(map_names::NEXT_HOPS, 1, &NextHop { key, mtu: 1500, unused: 0 })?;
        let key: [u8; size_of::<HopKey>()] = zerocopy::transmute!(key);
        self.insert(map_names::HOP_IDS, key, 1u32)?;
        self.set(map_names::HOPS, 0, &Hops { until: u64::MAX, generation: 1 })
    }

    fn fill(&mut self, hz: u32, clients: &[(IpAddr, u32)]) -> Result<()> {
        let settings = Settings {
            abi_version: abi::ABI_VERSION,
            ready: 1,
            gone_reset_ns: u64::MAX,
            hz,
            ..Settings::default()
        };
        self.set(map_names::SETTINGS, 0, &settings)?;
        for (port, used) in [(VIP_PORT, PortUse::Vip), (REAL_PORT, PortUse::Real)] {
            let (word, bit) = port_bit(port, used);
            self.set(map_names::PORTS, word, &bit)?;
        }
        let mut words = Vec::new();
        for service in SERVICES {
            for family in [Family::V4, Family::V6] {
                self.publish(&service, family, &mut words)?;
            }
        }
        ensure!(words.len() <= CHUNK_WORDS, "the tables do not fit into one chunk");
        let mut chunk: Array<MapData, u64> = Array::create(CHUNK_WORDS as u32, MMAPABLE)?;
        for (at, word) in words.iter().enumerate() {
            chunk.set(at as u32, *word, 0)?;
        }
        let arena = self.ebpf.map_mut(map_names::ARENA).context("no map ARENA")?;
        let mut arena: ArrayOfMaps<_, Array<MapData, u64>> = ArrayOfMaps::try_from(arena)?;
        arena.set(0, &chunk, 0)?;

        let mut id = ID_FIRST;
        for &(first, flows) in clients {
            for offset in 0..=step::address_offset(flows - 1) {
                match first {
                    IpAddr::V4(a) => {
                        let addr = Ipv4Addr::from(u32::from(a) + offset).octets();
                        self.insert(map_names::SOURCE_IDS4, addr, id)?;
                    }
                    IpAddr::V6(a) => {
                        let addr = Ipv6Addr::from(u128::from(a) + u128::from(offset)).octets();
                        self.insert(map_names::SOURCE_IDS6, addr, id)?;
                    }
                }
                self.set(map_names::SOURCES, id, &SourceEntry { class: CLASS, ifindex: 0 })?;
                id += 1;
            }
        }
        Ok(())
    }

    /// Writes a service in epoch 0, its table at the end of `arena`.
    fn publish(&mut self, service: &Service, family: Family, arena: &mut Vec<u64>) -> Result<()> {
        let id = service.id(family);
        let vip = service.vip(family);
        let (port, proto, zero) = (vip.port().to_be_bytes(), TCP, 0);
        match vip.ip() {
            IpAddr::V4(a) => {
                let key = VipKey4 { addr: a.octets(), port, proto, zero };
                let key: [u8; size_of::<VipKey4>()] = zerocopy::transmute!(key);
                self.insert(map_names::VIP_IDS4, key, id)?;
            }
            IpAddr::V6(a) => {
                let key = VipKey6 { addr: a.octets(), port, proto, zero };
                let key: [u8; size_of::<VipKey6>()] = zerocopy::transmute!(key);
                self.insert(map_names::VIP_IDS6, key, id)?;
            }
        }
        // Everybody else's route is `id + 1`, which is in no epoch: no packet may get there.
        let route = 100 + 2 * id;
        self.set(map_names::VIPS, id, &VipEntry { route: route + 1, flags: 0 })?;
        let key: [u8; size_of::<ClassVip>()] =
            zerocopy::transmute!(ClassVip { class: CLASS, vip: id });
        self.insert(map_names::CLASS_ROUTES, key, route)?;

        let backends = if service.reals == 1 { 1 } else { 2 };
        let table = Table {
            offset: arena.len() as u32,
            slots: service.slots,
            targets: service.reals.into(),
            backends,
        };
        arena.extend(std::iter::repeat_n(0, backends as usize));
        for real in 0..service.reals {
            let id = service.first_real(family) + u32::from(real);
            let backend = u32::from(real) * backends / u32::from(service.reals);
            arena.push(TargetWord { real: id, backend }.pack());
            self.set(map_names::REALS, id, &real_entry(service.real(family, real)))?;
        }
        let ordinals: Vec<u64> =
            (0..service.slots).map(|s| ordinal(service, backends, s)).collect();
        for four in ordinals.chunks(4) {
            arena.push(four.iter().rev().fold(0, |word, slot| word << 16 | slot));
        }
        let entry = RouteEntry {
            kind: route_kind::TABLE,
            pick: pick::HASH,
            counters: ID_FIRST + 2 * id,
            table,
            ..RouteEntry::default()
        };
        self.set(map_names::ROUTES, route, &entry)
    }

    /// Sets an element of an array.
    fn set<T: IntoBytes + zerocopy::Immutable>(
        &mut self,
        name: &str,
        index: u32,
        value: &T,
    ) -> Result<()> {
        let bytes = value.as_bytes();
        match bytes.len() {
            8 => self.set_bytes::<8>(name, index, bytes),
            16 => self.set_bytes::<16>(name, index, bytes),
            24 => self.set_bytes::<24>(name, index, bytes),
            40 => self.set_bytes::<40>(name, index, bytes),
            48 => self.set_bytes::<48>(name, index, bytes),
            56 => self.set_bytes::<56>(name, index, bytes),
            72 => self.set_bytes::<72>(name, index, bytes),
            other => bail!("no array has elements of {other} bytes"),
        }
    }

    fn set_bytes<const N: usize>(&mut self, name: &str, index: u32, value: &[u8]) -> Result<()> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut map: Array<_, [u8; N]> = Array::try_from(map)?;
        map.set(index, <[u8; N]>::try_from(value)?, 0).with_context(|| format!("{name}[{index}]"))
    }

    /// Adds an element to a dictionary.
    fn insert<K: Pod, V: Pod>(&mut self, name: &str, key: K, value: V) -> Result<()> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut map: HashMap<_, K, V> = HashMap::try_from(map)?;
        map.insert(key, value, 0).with_context(|| format!("adding to {name}"))
    }

    /// Forgets every half-open connection.
    pub(crate) fn clear_half_open(&mut self) -> Result<()> {
        self.clear::<{ size_of::<abi::FlowKey4>() }, { size_of::<abi::Flow4>() }>(
            map_names::HALF_OPEN4,
        )?;
        self.clear::<{ size_of::<abi::FlowKey6>() }, { size_of::<abi::Flow6>() }>(
            map_names::HALF_OPEN6,
        )
    }

    fn clear<const K: usize, const V: usize>(&mut self, name: &str) -> Result<()> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut map: HashMap<_, [u8; K], [u8; V]> = HashMap::try_from(map)?;
        let keys: Vec<[u8; K]> = map.keys().collect::<Result<_, _>>()?;
        for key in keys {
            map.remove(&key).with_context(|| format!("emptying {name}"))?;
        }
        Ok(())
    }

    /// Packets for each reason so far, on all CPUs.
    fn reasons(&self) -> Result<Vec<u64>> {
        let map = self.ebpf.map(map_names::REASONS).context("no map REASONS")?;
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        (0..Reason::ALL.len() as u32).map(|r| Ok(map.get(&r, 0)?.iter().sum())).collect()
    }

    /// Runs the driver; fails unless every packet met its fate for `reason`.
    pub(crate) fn run(
        &mut self,
        packet: &Packet,
        flows: u32,
        (target, verdict): (Target, u32),
        repeat: u32,
        reason: Reason,
    ) -> Result<f64> {
        let before = self.reasons()?;
        let ns = self.driver.run(packet, flows, target, repeat, verdict)?;
        let expected = if target == Target::Nothing { 0 } else { u64::from(repeat) };
        for ((&was, is), &of) in before.iter().zip(self.reasons()?).zip(Reason::ALL) {
            let wanted = if of == reason { expected } else { 0 };
            ensure!(
                is - was == wanted,
                "of {repeat} packets that should all be {}, {} were {}",
                reason.name(),
                is - was,
                of.name()
            );
        }
        Ok(ns)
    }

    /// Lets the programs see the handshake of every flow, as client and real would do it.
    pub(crate) fn establish(&mut self, packet: &Packet, flows: u32) -> Result<()> {
        for flow in 0..flows {
            let client = packet.client_of(flow);
            let vip = packet.vip;
            let syn = self.send(program_names::INGRESS, &frames::frame(Kind::Syn, client, vip)?)?;
            let real = frames::destination(&syn).context("a SYN without a destination")?;
            ensure!(real != vip, "the SYN of {client} was not translated");
            let answer = frames::frame(Kind::SynAck, real, client)?;
            self.send(program_names::EGRESS, &answer)?;
            self.send(program_names::INGRESS, &frames::frame(Kind::Data, client, vip)?)?;
        }
        Ok(())
    }

    fn send(&mut self, name: &str, frame: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        driver::test_run(program(&mut self.ebpf, name)?, options)?;
        Ok(out)
    }
}

fn real_entry(real: SocketAddr) -> Real {
    let mut addr = [0; 16];
    let family = match real.ip() {
        IpAddr::V4(a) => {
            addr[..4].copy_from_slice(&a.octets());
            4
        }
        IpAddr::V6(a) => {
            addr = a.octets();
            6
        }
    };
    Real { addr, port: real.port().to_be_bytes(), family, generation: 1, ..Real::default() }
}

/// The target in a slot: shares are right to a slot, and neighbours differ. Which permutation it
/// is makes no difference to the programs.
fn ordinal(service: &Service, backends: u32, slot: u32) -> u64 {
    let shuffled = slot * 97 % service.slots;
    let per_backend = u32::from(service.reals) / backends;
    let ninety = service.slots * 9 / 10;
    let ordinal = if backends == 1 || shuffled < ninety {
        shuffled % per_backend
    } else {
        per_backend + shuffled % per_backend
    };
    ordinal.into()
}
