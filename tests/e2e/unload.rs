//! `unload` leaves nothing of ours: what the kernel lists before and after.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use balancer_ebpf::abi::map_names;
use harness::{hooks, patience, root_or_skip};

use crate::bed::{Bed, MAGLEV, VIP4, split};

/// The kernel frees programs and maps a grace period after the last reference is gone.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn unload_leaves_no_program_map_link_qdisc_or_pin() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let before = listed(&bed);
    // The kernel puts files of its own into a fresh bpffs.
    let pins_before = pins_below(&instance.bpffs());

    bed.load(&instance, &split("redis", "*", "redis", &[("1.0", 1)], MAGLEV));
    bed.dial("web-1", VIP4, 15_000..15_010);
    let attached = attached_programs(&bed);
    assert!(!attached.is_empty(), "something is attached");
    let pins = pins_below(&instance.bpffs());
    assert!(pins.len() > pins_before.len(), "something is pinned");
    let maps = map_ids(&pins);
    assert!(maps.len() > 10, "maps are pinned: {pins:?}");

    instance.balancer(&["unload"]).expect("unload");

    assert_eq!(pins_below(&instance.bpffs()), pins_before, "pins are left");
    assert_eq!(listed(&bed), before, "qdiscs or filters are left");
    assert_eq!(attached_programs(&bed), BTreeSet::new(), "programs are attached");
    gone("program", &attached, || {
        aya::programs::loaded_programs().flatten().map(|program| program.id()).collect()
    });
    gone("map", &maps, || aya::maps::loaded_maps().flatten().map(|map| map.id()).collect());
    let state: Vec<_> = std::fs::read_dir(instance.state()).into_iter().flatten().collect();
    assert!(
        state.iter().flatten().all(|e| !e.file_name().to_string_lossy().starts_with("live-")),
        "the record of a live set is left: {state:?}"
    );

    // Twice is once, and the node forwards as before.
    instance.balancer(&["unload"]).expect("unload what is not there");
    bed.load(&instance, &split("redis", "*", "redis", &[("2.0", 1)], MAGLEV));
    let greetings = bed.dial("web-1", VIP4, 16_000..16_010);
    assert!(greetings.iter().all(|(_, greeting)| greeting.name == "c"));
}

/// None of `ids` is listed any more, at the latest after [`PATIENCE`].
fn gone(what: &str, ids: &BTreeSet<u32>, list: impl Fn() -> BTreeSet<u32>) {
    let begun = Instant::now();
    loop {
        let left: Vec<_> = list().intersection(ids).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < patience(PATIENCE), "{what} ids {left:?} are left");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Qdiscs and filters of every interface of the node, as `tc` lists them.
fn listed(bed: &Bed) -> String {
    bed.topology.node.run(|| {
        let interfaces = bed.topology.hosts().map(|(_, host)| host.interface.as_str());
        interfaces
            .map(|name| {
                hooks::qdiscs(name).expect("the qdiscs") + &hooks::filters(name).expect("filters")
            })
            .collect()
    })
}

/// Ids of the programs on the node's interfaces.
fn attached_programs(bed: &Bed) -> BTreeSet<u32> {
    bed.topology.node.run(|| {
        let interfaces = bed.topology.hosts().map(|(_, host)| host.interface.as_str());
        interfaces.flat_map(|name| hooks::programs(name).expect("the programs")).collect()
    })
}

fn pins_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(pins_below(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

/// Ids of the maps among `pins`: asking another kind of object for its map id gives nonsense.
fn map_ids(pins: &BTreeSet<PathBuf>) -> BTreeSet<u32> {
    let is_map = |pin: &&PathBuf| {
        pin.file_name().and_then(|name| name.to_str()).is_some_and(|n| map_names::ALL.contains(&n))
    };
    let id = |pin: &PathBuf| aya::maps::MapInfo::from_pin(pin).expect("a pinned map").id();
    pins.iter().filter(is_map).map(id).collect()
}
