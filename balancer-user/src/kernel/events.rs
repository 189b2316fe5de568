//! The reader of events: asks the programs to tell of new flows and refused packets, and takes
//! what they tell out of the ring buffer.
//!
//! What is asked for is a lease: it ends by itself soon after its tracer has stopped to renew
//! it, however it stopped. A ring buffer has one reader; a lock keeps a second one out.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{Map, MapData, RingBuf};
use balancer_ebpf::{
    abi::{self, Trace, Traced, map_names},
    reason::Reason,
};
use nix::{
    errno::Errno,
    fcntl::Flock,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use zerocopy::{FromBytes as _, FromZeros as _};

use crate::resolve::VipProtocol;

use super::{
    KernelError, View, lock,
    mapped::{Access, Mapped},
    read::{now, per_cpu},
};

/// How long the programs go on telling when nobody asks them to any more.
const LEASE: Duration = Duration::from_secs(3);
/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// The part of a second's allowance that may be used up at once: several ticks of the clock
/// that the programs read.
const BURSTS_PER_SECOND: u32 = 10;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    /// Packets that met these reasons. Those that neither begin a flow nor refuse are never
    /// told of.
    pub reasons: BTreeSet<Reason>,
    /// Of new flows one in so many, at random; 0 and 1: each.
    pub sample: u32,
    /// At most so many events a second on each CPU; `None`: no limit.
    pub rate: Option<u32>,
}

impl TraceRequest {
    /// As the programs read it, in force until `until_ns`.
    fn trace(&self, until_ns: u64) -> Trace {
        let interval_ns = self.rate.map_or(0, |rate| 1_000_000_000 / u64::from(rate.max(1)));
        let burst = self.rate.map_or(0, |rate| (rate / BURSTS_PER_SECOND).max(1) - 1);
        Trace {
            until_ns,
            reasons: self.reasons.iter().fold(0, |bits, reason| bits | reason.bit()),
            sample: self.sample,
            interval_ns,
            ahead_ns: interval_ns * u64::from(burst),
            zero: 0,
        }
    }
}

/// A new flow, or a packet that was refused. Ids are those of `epoch`; 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, to the tick of the kernel's coarse clock.
    pub time: SystemTime,
    /// What the packet met.
    pub reason: Reason,
    /// How many new flows this one stands for.
    pub sample: u32,
    /// Low 32 bits of the epoch.
    pub epoch: u32,
    /// VIP id.
    pub vip: u32,
    /// Source class.
    pub class: u32,
    /// Route id.
    pub route: u32,
    /// Real id.
    pub real: u32,
    /// Generation of that real.
    pub generation: u32,
    /// Counter id of the backend.
    pub counter: u32,
    /// Interface of the program.
    pub ifindex: u32,
    /// One of [`balancer_ebpf::abi::direction`].
    pub direction: u8,
    /// What was dialled with.
    pub protocol: VipProtocol,
    /// Source, as the packet came.
    pub src: SocketAddr,
    /// Destination, as the packet came.
    pub dst: SocketAddr,
    /// The source port that the real sees; 0: the flow has no entry.
    pub client_port: u16,
}

/// What became of the events since the tracer began, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Told.
    pub told: u64,
    /// Left out by sampling.
    pub left_out: u64,
    /// Lost to the limit.
    pub limited: u64,
    /// Lost because the reader did not keep up.
    pub full: u64,
}

/// What ended a wait, besides events and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// There is something to read.
    pub readable: bool,
    /// The other end is gone.
    pub closed: bool,
}

/// The one reader of a datapath's events. The programs tell while it lives.
pub struct Tracer {
    request: TraceRequest,
    ring: RingBuf<MapData>,
    trace: Mapped,
    traced: MapData,
    /// The kernel's id of `EVENTS`, and the pin that must lead to it.
    events: (u32, PathBuf),
    path: PathBuf,
    clocks: Clocks,
    renewed: Instant,
    _held: Flock<File>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("path", &self.path).field("request", &self.request).finish()
    }
}

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic_ns: u64,
    wall: SystemTime,
}

impl Clocks {
    fn read() -> Result<Self, KernelError> {
        Ok(Self { monotonic_ns: now()?, wall: SystemTime::now() })
    }

    fn wall(&self, monotonic_ns: u64) -> SystemTime {
        match self.monotonic_ns.checked_sub(monotonic_ns) {
            Some(ago) => self.wall - Duration::from_nanos(ago),
            None => self.wall + Duration::from_nanos(monotonic_ns - self.monotonic_ns),
        }
    }
}

impl Tracer {
    /// Begins to have events told. What an earlier reader left unread is thrown away.
    ///
    /// # Errors
    /// [`KernelError::Traced`] with the pid of the tracer that reads already; a pin cannot be
    /// opened, or a system call on a map failed.
    pub fn start(view: &View, request: TraceRequest) -> Result<Self, KernelError> {
        let path = view.path().to_owned();
        // Not the pin directory itself: that one's lock is the writer's.
        let maps = view.pins.maps();
        let dir = File::open(&maps)
            .map_err(|e| KernelError::system(format!("opening {}", maps.display()), e))?;
        let held = lock::hold(dir, &maps).map_err(|error| match error {
            KernelError::Busy { pid, .. } => KernelError::Traced { path: path.clone(), pid },
            other => other,
        })?;
        let events = view.pinned(map_names::EVENTS)?;
        let failed = |e| super::map_failed(map_names::EVENTS, e);
        let id = events.info().map_err(failed)?.id();
        let ring = RingBuf::try_from(Map::RingBuf(events)).map_err(failed)?;
        let trace = view.pinned(map_names::TRACE)?;
        let words = size_of::<Trace>() / 8;
        let trace = Mapped::new(trace.fd().as_fd(), words, Access::Write)
            .map_err(|e| KernelError::map(map_names::TRACE, "mmap", e))?;
        let traced = view.pinned(map_names::TRACED)?;
        let mut tracer = Self {
            request,
            ring,
            trace,
            traced,
            events: (id, view.pins.map(map_names::EVENTS)),
            path,
            clocks: Clocks::read()?,
            renewed: Instant::now(),
            _held: held,
        };
        tracer.stop();
        while tracer.ring.next().is_some() {}
        tracer.forget()?;
        tracer.ask()?;
        Ok(tracer)
    }

    /// Zeroes what was counted for another tracer.
    fn forget(&self) -> Result<(), KernelError> {
        let failed = |e| super::map_failed(map_names::TRACED, e);
        let mut map = per_cpu::<TracedBytes>(map_names::TRACED, &self.traced)?;
        let zeros = vec![[0; size_of::<Traced>()]; super::read::cpus()?];
        let zeros = aya::maps::PerCpuValues::try_from(zeros)
            .map_err(|e| KernelError::map(map_names::TRACED, "BPF_MAP_UPDATE_ELEM", e))?;
        map.set(0, zeros, 0).map_err(failed)
    }

    /// Writes the request, the word that puts it in force last.
    fn ask(&mut self) -> Result<(), KernelError> {
        let until_ns = now()?.saturating_add(LEASE.as_nanos() as u64);
        let asked = self.request.trace(0);
        // All but the first word, which is `until_ns`.
        let before: Trace = self.trace.read(0);
        self.trace.write(0, &Trace { until_ns: before.until_ns, ..asked });
        self.trace.store_release(0, until_ns);
        self.renewed = Instant::now();
        Ok(())
    }

    /// Has nothing more told. What was told before can still be read.
    pub fn stop(&self) {
        self.trace.store_release(0, 0);
    }

    /// Waits until there are events, or `readable` can be read, or the other end of `closed` is
    /// gone, or `timeout` has passed. Renews the lease as it goes, so it must be called again
    /// within a second or so.
    ///
    /// # Errors
    /// [`KernelError::Replaced`]: these events will never come again.
    pub fn wait(
        &mut self,
        readable: BorrowedFd<'_>,
        closed: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<Woken, KernelError> {
        if self.renewed.elapsed() >= RENEWAL {
            self.renew()?;
        }
        let left = timeout.min(RENEWAL.saturating_sub(self.renewed.elapsed()));
        // Rounded up: a wait of no time at all would be asked for again and again.
        let left =
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        let mut fds = [
            PollFd::new(self.ring.as_fd(), PollFlags::POLLIN),
            PollFd::new(readable, PollFlags::POLLIN),
            // Only what is always told: errors, and that nobody is there.
            PollFd::new(closed, PollFlags::empty()),
        ];
        match poll(&mut fds, left) {
            Ok(_) => {
                let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
                Ok(Woken { readable: any(&fds[1]), closed: any(&fds[2]) })
            }
            Err(Errno::EINTR) => Ok(Woken::default()),
            Err(e) => Err(KernelError::map(map_names::EVENTS, "poll", e.into())),
        }
    }

    /// Asks again, if the maps are still those that are loaded.
    fn renew(&mut self) -> Result<(), KernelError> {
        let (id, pin) = &self.events;
        let same = pin.exists()
            && MapData::from_pin(pin)
                .and_then(|map| Ok(map.info()?.id()))
                .is_ok_and(|found| found == *id);
        if !same {
            return Err(KernelError::Replaced { path: self.path.clone() });
        }
        self.clocks = Clocks::read()?;
        self.ask()
    }

    /// The next event that was told; `None`: there is none now.
    ///
    /// # Errors
    /// What lies in the ring buffer is no event.
    pub fn next_event(&mut self) -> Result<Option<Event>, KernelError> {
        let Some(bytes) = self.ring.next() else { return Ok(None) };
        let event = abi::Event::read_from_bytes(&bytes)
            .map_err(|_| no_event(format!("it has {} bytes", bytes.len())))?;
        let reason = Reason::from_number(event.reason)
            .ok_or_else(|| no_event(format!("it has reason {}", event.reason)))?;
        let end = |addr: [u8; 16], port: [u8; 2]| {
            let [a, b, c, d, ..] = addr;
            let ip =
                if event.family == 4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(addr) };
            SocketAddr::new(ip, u16::from_be_bytes(port))
        };
        Ok(Some(Event {
            time: self.clocks.wall(event.time_ns),
            reason,
            sample: event.sample,
            epoch: event.epoch,
            vip: event.vip,
            class: event.class,
            route: event.route,
            real: event.real,
            generation: event.generation,
            counter: event.counter,
            ifindex: event.ifindex,
            direction: event.direction,
            protocol: VipProtocol::from_number(event.proto).unwrap_or_default(),
            src: end(event.src, event.sport),
            dst: end(event.dst, event.dport),
            client_port: u16::from_be_bytes(event.client_port),
        }))
    }

    /// What became of the events so far.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn told(&self) -> Result<Told, KernelError> {
        let Traced { told, left_out, limited, full, .. } = traced(&self.traced)?;
        Ok(Told { told, left_out, limited, full })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn no_event(why: String) -> KernelError {
    KernelError::Object(format!("an element of EVENTS is no event: {why}"))
}

/// A value as aya hands it out.
type TracedBytes = [u8; size_of::<Traced>()];

/// The sum over all CPUs; of `used_until_ns` the latest.
pub(super) fn traced(map: &MapData) -> Result<Traced, KernelError> {
    let failed = |e| super::map_failed(map_names::TRACED, e);
    let values = per_cpu::<TracedBytes>(map_names::TRACED, map)?.get(&0, 0).map_err(failed)?;
    let mut sum = Traced::new_zeroed();
    for value in values.iter() {
        let one = Traced::read_from_bytes(value).unwrap_or_default();
        sum.used_until_ns = sum.used_until_ns.max(one.used_until_ns);
        sum.told += one.told;
        sum.left_out += one.left_out;
        sum.limited += one.limited;
        sum.full += one.full;
    }
    Ok(sum)
}

/// What is asked for now.
pub(super) fn asked(map: &MapData) -> Result<Trace, KernelError> {
    let words = Mapped::new(map.fd().as_fd(), size_of::<Trace>() / 8, Access::Read)
        .map_err(|e| KernelError::map(map_names::TRACE, "mmap", e))?;
    Ok(words.read(0))
}

/// Bytes of the ring buffer that nobody has read yet. Its first page holds how far the reader
/// got, the second one how far the programs (Documentation/bpf/ringbuf.rst).
pub(super) fn unread(map: &MapData) -> Result<u64, KernelError> {
    let failed = |e: io::Error| KernelError::map(map_names::EVENTS, "mmap", e);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .map_err(|e| failed(e.into()))?
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| failed(io::Error::other("the system does not say how large a page is")))?;
    let words = Mapped::new(map.fd().as_fd(), 2 * page / 8, Access::Read).map_err(failed)?;
    let read = words.load_acquire(0);
    Ok(words.load_acquire(page / 8).saturating_sub(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rate: Option<u32>) -> TraceRequest {
        TraceRequest { reasons: [Reason::Denied, Reason::NewFlow].into(), sample: 3, rate }
    }

    #[test]
    fn a_limit_is_an_interval_and_a_tenth_of_a_second_ahead() {
        let trace = request(Some(1000)).trace(9);
        assert_eq!((trace.interval_ns, trace.ahead_ns), (1_000_000, 99_000_000));
        assert_eq!((trace.until_ns, trace.sample), (9, 3));
        assert_eq!(trace.reasons, Reason::Denied.bit() | Reason::NewFlow.bit());
    }

    #[test]
    fn the_smallest_limit_lets_one_event_at_a_time_through() {
        let trace = request(Some(1)).trace(0);
        assert_eq!((trace.interval_ns, trace.ahead_ns), (1_000_000_000, 0));
        let none = request(None).trace(0);
        assert_eq!((none.interval_ns, none.ahead_ns), (0, 0));
    }

    #[test]
    fn events_have_the_time_of_day_before_and_after_the_clocks_were_read() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let clocks = Clocks { monotonic_ns: 5_000, wall };
        assert_eq!(clocks.wall(4_000), wall - Duration::from_nanos(1_000));
        assert_eq!(clocks.wall(6_500), wall + Duration::from_nanos(1_500));
    }
}
