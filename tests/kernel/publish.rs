//! One set after the other, each whole.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use balancer_ebpf::abi::{CHUNK_WORDS, Table, map_names, pick};
use balancer_user::{
    kernel::{Datapath, KernelError, PublishOptions, Published, Written},
    policy::LoadBalancer,
    resolve::Resolved,
};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{Service, compiled, described, expected, real, resolved, service, vip},
};

fn publish(datapath: &mut Datapath, world: &Resolved) -> Published {
    let tables = compiled(datapath, world);
    datapath.publish(&tables, plain()).expect("publish")
}

fn shop() -> Vec<Service> {
    let client: IpAddr = "10.0.0.9".parse().expect("address");
    vec![
        service(1, &[1, 2, 3]),
        service(2, &[4, 5]),
        Service { own: Some((client, vec![(1, vec![real(9)])])), ..service(3, &[6]) },
        Service { load_balancer: LoadBalancer::RoundRobin, ..service(4, &[]) },
    ]
}

/// Both ways of learning the ids agree: what the writer remembers and what the maps say. Only
/// the quarantine may be larger in memory: there a counter is not asked whether it counted.
fn check_memory(datapath: &mut Datapath) {
    let mut read_back = datapath.view().assignment().expect("read back");
    let remembered = datapath.assignment().expect("remembered");
    assert!(read_back.quarantine.counters.is_subset(&remembered.quarantine.counters));
    read_back.quarantine = remembered.quarantine.clone();
    assert_eq!(*remembered, read_back);
    let mut addresses: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for key in read_back.vips.keys() {
        *addresses.entry(key.addr.ip()).or_default() += 1;
    }
    let found = datapath.view().vip_addresses().expect("read back");
    assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), addresses);
}

#[test]
fn address_is_known_for_as_long_as_some_vip_has_it() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let other_port = |n: u16| {
        let vip = SocketAddr::new(vip(n).ip(), 443);
        Service { vip, ..service(n, &[1]) }
    };
    let sets: [&[Service]; 4] = [
        &[service(1, &[1]), other_port(1), service(2, &[1])],
        &[other_port(1), service(2, &[1])],
        &[service(2, &[1])],
        &[],
    ];
    for (number, services) in sets.into_iter().enumerate() {
        publish(&mut datapath, &resolved(services, &[]));
        check_memory(&mut datapath);
        let addresses = datapath.view().vip_addresses().expect("read back").len();
        assert_eq!(addresses, [2, 2, 1, 0][number]);
    }
}

/// What a writer leaves that is killed between a VIP and its address.
#[test]
fn counts_of_addresses_are_repaired_by_the_next_writer() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    publish(&mut datapath, &resolved(&shop(), &[]));
    drop(datapath);
    let pin = bed.dir().join("maps").join(map_names::VIP_ADDRESSES4);
    let map = aya::maps::MapData::from_pin(&pin).expect("pinned");
    let mut map: aya::maps::HashMap<_, [u8; 4], u32> =
        aya::maps::Map::HashMap(map).try_into().expect("a hash map");
    let IpAddr::V4(kept) = vip(1).ip() else { panic!("IPv4") };
    map.insert(kept.octets(), 7, 0).expect("a count too high");
    map.insert([240, 9, 9, 9], 1, 0).expect("an address of nobody");
    let mut datapath = Datapath::open(&bed.lock()).expect("open");
    publish(&mut datapath, &resolved(&shop(), &[]));
    check_memory(&mut datapath);
}

#[test]
fn what_is_published_is_what_the_maps_say() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let world = resolved(&shop(), &[]);
    let published = publish(&mut datapath, &world);
    assert_eq!(published.epoch, 1);
    assert_eq!(datapath.epoch(), 1);
    assert_eq!(described(&datapath).expect("described"), expected(&world));
    check_memory(&mut datapath);
    // A VIP whose backend is empty refuses.
    let refused = &described(&datapath).expect("described")[&(None, vip(4))];
    assert!(!refused.is_empty() && refused.iter().all(Option::is_none));
}

#[test]
fn publishing_the_same_again_writes_nothing() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let world = resolved(&shop(), &[]);
    let first = publish(&mut datapath, &world);
    assert!(first.written.keys_added > 0 && first.written.tables > 0, "{first:?}");
    let again = publish(&mut datapath, &world);
    assert_eq!((again.epoch, again.written), (first.epoch, Written::default()));
    // Nor does another process.
    drop(datapath);
    let mut datapath = Datapath::open(&bed.lock()).expect("open");
    let again = publish(&mut datapath, &world);
    assert_eq!((again.epoch, again.written), (first.epoch, Written::default()));
}

#[test]
fn one_change_writes_only_what_changed_and_keeps_ids() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    publish(&mut datapath, &resolved(&shop(), &[]));
    let before = datapath.assignment().expect("assignment").clone();
    for reopened in [false, true] {
        let mut services = shop();
        services[0] = service(1, if reopened { &[1, 2, 3] } else { &[1, 2] });
        if reopened {
            drop(datapath);
            datapath = Datapath::open(&bed.lock()).expect("open");
        }
        let world = resolved(&services, &[real(3)]);
        let published = publish(&mut datapath, &world);
        let written = published.written;
        assert_eq!((written.tables, written.entries), (1, 1), "{written:?}");
        assert_eq!((written.keys_added, written.keys_deleted), (0, 0), "{written:?}");
        assert_eq!(written.reals, 0, "{written:?}");
        assert_eq!(described(&datapath).expect("described"), expected(&world));
        let after = datapath.assignment().expect("assignment");
        assert_eq!(after.vips, before.vips);
        assert_eq!(after.routes, before.routes);
        assert_eq!(after.reals, before.reals);
        assert_eq!(after.counters, before.counters);
    }
}

#[test]
fn vips_and_sources_come_and_go() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let worlds = [
        resolved(&shop(), &[]),
        resolved(&shop()[..2], &[]),
        resolved(&[service(7, &[1]), service(8, &[2, 9])], &[]),
        resolved(&[], &[]),
        resolved(&shop()[1..], &[]),
    ];
    for (round, world) in worlds.iter().chain(&worlds).enumerate() {
        publish(&mut datapath, world);
        assert_eq!(described(&datapath).expect("described"), expected(world), "round {round}");
        check_memory(&mut datapath);
        if round % 3 == 2 {
            drop(datapath);
            datapath = Datapath::open(&bed.lock()).expect("open");
        }
    }
}

#[test]
fn readers_see_the_old_or_the_new_set_and_never_a_third() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let worlds = [resolved(&shop(), &[]), resolved(&[service(1, &[3, 4]), service(5, &[1])], &[])];
    let sets = worlds.each_ref().map(expected);
    publish(&mut datapath, &worlds[0]);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let view = Datapath::open_read_only(bed.dir()).expect("view");
            let mut seen = [0u32; 2];
            while !done.load(Ordering::Relaxed) {
                let now = described(&view).expect("described");
                let which = sets.iter().position(|set| *set == now).expect("old or new set");
                seen[which] += 1;
            }
            seen
        });
        for round in 0..60 {
            publish(&mut datapath, &worlds[(round + 1) % 2]);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("reader")
    });
    assert!(seen.iter().all(|n| *n > 0), "both sets were seen: {seen:?}");
}

#[test]
fn previous_table_is_kept_for_a_changed_hash_route_only() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let random = Service { load_balancer: LoadBalancer::Random, ..service(2, &[4, 5]) };
    publish(&mut datapath, &resolved(&[service(1, &[1, 2]), random.clone()], &[]));
    let changed = Service { backends: vec![(1, vec![real(4)])], ..random };
    let world = resolved(&[service(1, &[1]), changed], &[real(2), real(5)]);
    let old: Vec<_> = datapath.routes().expect("routes");
    publish(&mut datapath, &world);
    let new: Vec<_> = datapath.routes().expect("routes");
    for (old, new) in old.iter().zip(&new) {
        if new.entry.pick == pick::HASH {
            assert_eq!(new.entry.previous, old.entry.table);
            assert_eq!(new.entry.previous_counters, old.entry.counters);
            let left = new.previous_for.expect("deadline");
            assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600));
        } else {
            assert_eq!((new.entry.previous, new.previous_for), (Table::default(), None));
        }
    }
}

#[test]
fn routes_that_share_a_table_share_its_words() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let no_previous = || PublishOptions { previous_for: Duration::ZERO, ..plain() };
    let words = |d: &Datapath| {
        let routes = d.routes().expect("routes");
        routes.iter().map(|r| r.entry.table.offset).collect::<std::collections::BTreeSet<_>>().len()
    };
    // Three VIPs of the same reals, one of which changes and comes back, again and again.
    let same = |n| service(n, &[1, 2, 3]);
    for round in 0..6u16 {
        let world = if round % 2 == 0 {
            resolved(&[same(1), same(2), same(3)], &[])
        } else {
            resolved(&[same(1), service(2, &[1]), same(3)], &[])
        };
        let tables = compiled(&mut datapath, &world);
        datapath.publish(&tables, no_previous()).expect("publish");
        assert_eq!(described(&datapath).expect("described"), expected(&world), "round {round}");
        if round == 0 {
            assert_eq!(words(&datapath), 1);
        }
        if round == 3 {
            drop(datapath);
            datapath = Datapath::open(&bed.lock()).expect("open");
        }
    }
}

#[test]
fn sources_without_a_class_stay_known() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let mut world = resolved(&[service(1, &[1])], &[]);
    let address: IpAddr = "10.0.0.7".parse().expect("address");
    let dataplanes = vec![("default".into(), "seven".into())];
    world.sources.push(balancer_user::resolve::Source { address, dataplanes, class: 0 });
    publish(&mut datapath, &world);
    drop(datapath);
    let mut datapath = Datapath::open(&bed.lock()).expect("open");
    let again = publish(&mut datapath, &world);
    assert_eq!(again.written, Written::default());
    assert_eq!(datapath.sources().expect("sources").len(), 1);
}

#[test]
fn expired_previous_table_gives_its_words_back() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let short = || PublishOptions { previous_for: Duration::from_millis(50), ..plain() };
    for reals in [&[1, 2][..], &[1]] {
        let tables = compiled(&mut datapath, &resolved(&[service(1, reals)], &[real(2)]));
        datapath.publish(&tables, short()).expect("publish");
    }
    let words = |d: &Datapath| {
        d.fill().expect("fill").iter().find(|f| f.name == "ARENA").expect("arena").used
    };
    let both = words(&datapath);
    std::thread::sleep(Duration::from_millis(60));
    let tables = compiled(&mut datapath, &resolved(&[service(1, &[1])], &[real(2)]));
    let published = datapath.publish(&tables, short()).expect("publish");
    assert_eq!(published.written.tables, 0);
    let one = words(&datapath);
    assert!(one < both, "{one} of {both}");
}

#[test]
fn arena_grows_and_its_words_are_used_again() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let no_previous = || PublishOptions { previous_for: Duration::ZERO, ..plain() };
    let offsets = |d: &Datapath| {
        let routes = d.routes().expect("routes");
        routes.iter().map(|r| (r.entry.table.offset, r.entry.table.words())).collect::<Vec<_>>()
    };
    // 60 reals take a table of 16,381 slots: five of them are more than one chunk.
    let reals = |n: u16| (10 * n..10 * n + 60).collect::<Vec<_>>();
    let all: Vec<_> = (10..120).map(real).collect();
    let many: Vec<Service> = (1..=5).map(|n| service(n, &reals(n))).collect();
    let tables = compiled(&mut datapath, &resolved(&many, &[]));
    datapath.publish(&tables, no_previous()).expect("publish");
    let end = |d: &Datapath| offsets(d).iter().map(|(at, n)| at + n).max().unwrap_or(0);
    assert!(end(&datapath) as usize > CHUNK_WORDS, "more than one chunk is in use");
    assert_eq!(described(&datapath).expect("described"), expected(&resolved(&many, &[])));
    // Changing all of them back and forth does not grow the arena for ever.
    let fewer: Vec<Service> = (1..=5).map(|n| service(n, &reals(n)[1..])).collect();
    let mut ends = Vec::new();
    for round in 0..8 {
        let world = resolved(if round % 2 == 0 { &fewer } else { &many }, &all);
        let live = offsets(&datapath);
        let tables = compiled(&mut datapath, &world);
        datapath.publish(&tables, no_previous()).expect("publish");
        assert_eq!(described(&datapath).expect("described"), expected(&world), "round {round}");
        // Programs read the old tables until the grace period after the flip.
        for (at, words) in offsets(&datapath) {
            let free = live.iter().all(|(old, n)| at + words <= *old || old + n <= at);
            assert!(free, "round {round}: words {at}.. were in use before the flip");
        }
        ends.push(end(&datapath));
    }
    assert_eq!(ends[7], ends[5], "{ends:?}");
}

#[test]
fn other_half_is_equal_after_a_publish() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    for world in [resolved(&shop(), &[]), resolved(&shop()[1..], &[])] {
        publish(&mut datapath, &world);
        for name in ["VIPS", "SOURCES", "ROUTES"] {
            let [one, other] = halves(&bed, name);
            assert!(one == other, "{name}");
        }
    }
}

fn halves(bed: &Bed, name: &str) -> [Vec<u8>; 2] {
    let map = aya::maps::MapData::from_pin(bed.dir().join("maps").join(name)).expect("pin");
    let info = map.info().expect("info");
    let half = info.max_entries() / 2;
    let map = aya::maps::Map::Array(map);
    let read = |index: u32| match info.value_size() {
        8 => bytes::<8>(&map, index),
        56 => bytes::<56>(&map, index),
        other => panic!("{name}: values of {other} bytes"),
    };
    [0, 1].map(|h| (0..half).flat_map(|id| read(h * half + id)).collect())
}

fn bytes<const N: usize>(map: &aya::maps::Map, index: u32) -> Vec<u8> {
    let array: aya::maps::Array<_, [u8; N]> = map.try_into().expect("array");
    array.get(&index, 0).expect("element").to_vec()
}

#[test]
fn failing_hook_leaves_the_current_epoch_untouched() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let old = resolved(&shop(), &[]);
    publish(&mut datapath, &old);
    let new = resolved(&[service(1, &[7]), service(9, &[8])], &[]);
    let tables = compiled(&mut datapath, &new);
    let mut asked = None;
    let mut hook = |epoch| {
        asked = Some(epoch);
        Err("the disk is full".into())
    };
    let options = PublishOptions { before_flip: Some(&mut hook), ..plain() };
    let error = datapath.publish(&tables, options).expect_err("hook");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(asked, Some(2));
    assert_eq!(datapath.epoch(), 1);
    assert_eq!(described(&datapath).expect("described"), expected(&old));
    // The next attempt repairs what the failed one wrote.
    publish(&mut datapath, &new);
    assert_eq!(described(&datapath).expect("described"), expected(&new));
    check_memory(&mut datapath);
}

#[test]
fn contradicting_ids_are_refused_before_anything_is_written() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let world = resolved(&shop(), &[]);
    publish(&mut datapath, &world);
    let mut tables = compiled(&mut datapath, &world);
    for spec in tables.vips.values_mut() {
        spec.id += 10;
    }
    let error = datapath.publish(&tables, plain()).expect_err("conflict");
    assert!(matches!(error, KernelError::Conflict(_)), "{error}");
    assert_eq!(described(&datapath).expect("described"), expected(&world));
}
