//! A small change by difference gives the maps that the whole set gives.

use std::{collections::BTreeSet, net::IpAddr};

use balancer_ebpf::abi::RouteEntry;
use balancer_user::{
    compile::{Compiler, Limits, Patch, Tables},
    kernel::{Datapath, KernelError, PublishOptions, Published, View},
    policy::LoadBalancer,
    resolve::{Parts, Resolved, Source},
};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{Service, described, expected, real, resolved, service},
};

fn limits() -> Limits {
    Limits { reals: 64, ..small() }
}

/// A datapath with its compiler; what it made last is live.
struct Side {
    datapath: Datapath,
    compiler: Compiler,
    tables: Tables,
}

impl Side {
    fn new(bed: &Bed, world: &Resolved) -> Self {
        let datapath = bed.create(&limits());
        let mut side = Self { datapath, compiler: Compiler::new(), tables: Tables::default() };
        side.whole(world);
        side
    }

    fn whole(&mut self, world: &Resolved) -> Published {
        let assignment = self.datapath.assignment().expect("assignment");
        self.tables = self.compiler.compile(world, assignment, &limits()).expect("compile");
        self.datapath.publish(&self.tables, as_before()).expect("publish")
    }

    fn patched(&mut self, world: &Resolved, parts: &Parts) -> Published {
        let assignment = self.datapath.assignment().expect("assignment");
        let patch = self
            .compiler
            .patch(&mut self.tables, world, parts, assignment, &limits())
            .expect("a small change");
        self.datapath.publish_patch(&self.tables, &patch, as_before()).expect("publish")
    }
}

fn as_before<'a>() -> PublishOptions<'a> {
    PublishOptions { interfaces_as_before: true, ..plain() }
}

fn only<T: Ord + Copy>(here: &[T], there: &[T]) -> Vec<T> {
    here.iter().filter(|one| !there.contains(one)).copied().collect()
}

fn parts(old: &Resolved, new: &Resolved) -> Parts {
    let addresses = |world: &Resolved| -> Vec<IpAddr> {
        world.sources.iter().map(|source| source.address).collect()
    };
    Parts {
        routes: (0..new.routes.len()).filter(|at| old.routes[*at] != new.routes[*at]).collect(),
        sources_added: only(&addresses(new), &addresses(old)),
        sources_removed: only(&addresses(old), &addresses(new)),
        inventory_added: only(&new.inventory, &old.inventory),
        inventory_removed: only(&old.inventory, &new.inventory),
    }
}

/// Everything that a reader of the maps can tell, without times.
fn content(view: &View) -> Result<Vec<String>, KernelError> {
    let mut rows = vec![format!("epoch {}", view.epoch())];
    rows.extend(view.vips()?.iter().map(|row| format!("{row:?}")));
    rows.extend(view.sources()?.iter().map(|row| format!("{row:?}")));
    rows.extend(view.class_routes()?.iter().map(|row| format!("{row:?}")));
    for row in view.routes()? {
        let entry = RouteEntry { previous_until_ns: 0, ..row.entry };
        let tables = [view.table(&entry.table)?, view.table(&entry.previous)?];
        rows.push(format!("route {} {entry:?} {tables:?}", row.id));
    }
    let reals = view.reals()?;
    rows.extend(reals.iter().map(|r| {
        format!("real {} {} {} gone {}", r.id, r.addr, r.generation, r.gone_for.is_some())
    }));
    Ok(rows)
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(end)) as u16
    }
}

/// A world that changes a little.
struct Small {
    services: Vec<Service>,
    /// Workloads that are routed like everybody.
    workloads: BTreeSet<IpAddr>,
    /// Reals of the inventory that no service names.
    idle: BTreeSet<u16>,
}

impl Small {
    fn new() -> Self {
        let client: IpAddr = "10.0.0.9".parse().expect("address");
        let mut services: Vec<Service> = (1..=6).map(|n| service(n, &[n, n + 1, n + 9])).collect();
        services[2].own = Some((client, vec![(1, vec![real(3)]), (1, vec![real(4)])]));
        services[4].backends.push((1, vec![real(30)]));
        services[5].load_balancer = LoadBalancer::RoundRobin;
        Self { services, workloads: BTreeSet::new(), idle: BTreeSet::new() }
    }

    fn turn(&mut self, numbers: &mut Numbers) {
        let service = usize::from(numbers.below(self.services.len() as u16));
        let backends = &mut self.services[service].backends;
        let backend = usize::from(numbers.below(backends.len() as u16));
        let (weight, reals) = &mut backends[backend];
        let one = numbers.below(24);
        match numbers.below(8) {
            0 => *weight = 1 + u32::from(numbers.below(3)),
            1 => reals.clear(),
            2 | 3 => reals.retain(|addr| *addr != real(one)),
            4 | 5 if !reals.contains(&real(one)) => reals.push(real(one)),
            6 if !self.idle.insert(one) => _ = self.idle.remove(&one),
            _ => {
                let address = IpAddr::from([10, 0, 1, one as u8]);
                if !self.workloads.insert(address) {
                    self.workloads.remove(&address);
                }
            }
        }
    }

    fn resolved(&self) -> Resolved {
        let idle: Vec<_> = self.idle.iter().map(|n| real(*n)).collect();
        let mut resolved = resolved(&self.services, &idle);
        resolved.sources.extend(self.workloads.iter().map(|&address| Source {
            address,
            dataplanes: vec![("default".into(), address.to_string())],
            class: 0,
        }));
        resolved.sources.sort_by_key(|source| source.address);
        resolved
    }
}

#[test]
fn small_changes_by_difference_give_the_maps_of_the_whole() {
    let Some(_) = root_or_skip("kernel") else { return };
    for seed in [1, 0x5eed, 0xdead_beef] {
        let (bed, other) = (Bed::new(), Bed::new());
        let mut numbers = Numbers(seed);
        let mut world = Small::new();
        let mut old = world.resolved();
        let (mut patched, mut whole) = (Side::new(&bed, &old), Side::new(&other, &old));
        for turn in 0..60 {
            (0..=numbers.below(2)).for_each(|_| world.turn(&mut numbers));
            let new = world.resolved();
            let ours = patched.patched(&new, &parts(&old, &new));
            let theirs = whole.whole(&new);
            let at = format!("turn {turn} of seed {seed:#x}");
            assert_eq!(patched.tables, whole.tables, "{at}");
            assert_eq!((ours.epoch, ours.written), (theirs.epoch, theirs.written), "{at}");
            let (ours, theirs) = (&mut patched.datapath, &mut whole.datapath);
            assert_eq!(content(ours).expect("maps"), content(theirs).expect("maps"), "{at}");
            assert_eq!(ours.assignment().expect("ids"), theirs.assignment().expect("ids"), "{at}");
            old = new;
        }
        // What a process that begins now reads is what was published last.
        drop(patched.datapath);
        let datapath = Datapath::open(&bed.lock()).expect("open");
        assert_eq!(described(&datapath).expect("described"), expected(&old));
    }
}

#[test]
fn a_patch_after_a_failed_publish_is_a_publish_of_the_whole() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut world = Small::new();
    let first = world.resolved();
    let mut side = Side::new(&bed, &first);
    world.services[0] = service(1, &[1, 2]);
    let second = world.resolved();
    let assignment = side.datapath.assignment().expect("assignment");
    let change = parts(&first, &second);
    let patch = side
        .compiler
        .patch(&mut side.tables, &second, &change, assignment, &limits())
        .expect("a small change");
    let mut refuse = |_| Err("the disk is full".into());
    let options = PublishOptions { before_flip: Some(&mut refuse), ..as_before() };
    let error = side.datapath.publish_patch(&side.tables, &patch, options).expect_err("refused");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(described(&side.datapath).expect("described"), expected(&first));
    // A patch of nothing, on maps that have not met the one before.
    let none = Patch::default();
    side.datapath.publish_patch(&side.tables, &none, as_before()).expect("publish");
    assert_eq!(described(&side.datapath).expect("described"), expected(&second));
}
