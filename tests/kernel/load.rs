//! Loading, opening, locking, unloading.

use std::{collections::BTreeSet, fs};

use aya::{maps::loaded_maps, programs::loaded_programs};
use balancer_ebpf::abi::{ABI_VERSION, Settings, map_names, program_names};
use balancer_user::{
    compile::Limits,
    kernel::{self, Datapath, KernelError},
};
use harness::root_or_skip;

use super::bed::{Bed, small};

/// Ids of maps and programs that carry our names.
fn ours() -> BTreeSet<(&'static str, u32)> {
    let maps = loaded_maps().filter_map(Result::ok);
    let programs = loaded_programs().filter_map(Result::ok);
    maps.filter(|m| m.name_as_str().is_some_and(|n| map_names::ALL.contains(&n)))
        .map(|m| ("map", m.id()))
        .chain(
            programs
                .filter(|p| p.name_as_str().is_some_and(|n| n.starts_with("balancer_")))
                .map(|p| ("program", p.id())),
        )
        .collect()
}

fn ids_below(datapath: &Datapath) -> BTreeSet<(&'static str, u32)> {
    let mut ids: BTreeSet<_> =
        datapath.programs().expect("programs").iter().map(|p| ("program", p.id)).collect();
    for name in map_names::ALL {
        let map = aya::maps::MapData::from_pin(datapath.path().join("maps").join(name));
        ids.insert(("map", map.expect("pinned map").info().expect("info").id()));
    }
    ids
}

#[test]
fn unload_leaves_no_program_map_or_pin() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let datapath = bed.create(&small());
    let ids = ids_below(&datapath);
    assert_eq!(ids.len(), map_names::ALL.len() + program_names::ALL.len());
    assert!(ids.is_subset(&ours()), "what is pinned is loaded");
    drop(datapath);
    assert!(ids.is_subset(&ours()), "pins keep it loaded");
    let unloaded = kernel::unload(bed.dir()).expect("unload");
    assert_eq!(unloaded.programs.len(), program_names::ALL.len());
    assert_eq!(unloaded.maps.len(), map_names::ALL.len());
    assert!(!bed.dir().exists());
    assert!(unloaded.held.is_empty(), "{unloaded:?}");
    let left: BTreeSet<_> = ids.intersection(&ours()).copied().collect();
    assert!(left.is_empty(), "left: {left:?}");
    assert!(matches!(kernel::unload(bed.dir()), Err(KernelError::NotLoaded { .. })));
}

#[test]
fn unload_says_what_a_reader_still_holds() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    drop(bed.create(&small()));
    let _view = Datapath::open_read_only(bed.dir()).expect("view");
    let unloaded = kernel::unload(bed.dir()).expect("unload");
    assert!(unloaded.held.contains(&"map FLOWS4".into()), "{unloaded:?}");
    assert!(!bed.dir().exists());
}

#[test]
fn open_finds_the_limits_that_create_was_given() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    drop(bed.create(&small()));
    let datapath = Datapath::open(&bed.lock()).expect("open");
    assert_eq!(datapath.limits().expect("limits"), small());
    assert_eq!(datapath.epoch(), 0);
    let again = Datapath::create(&bed.lock_of(&datapath), &small());
    assert!(matches!(again, Err(KernelError::AlreadyLoaded { .. })), "{again:?}");
}

impl Bed {
    /// A second handle on the lock that `datapath` holds would be refused: use its own.
    fn lock_of(&self, datapath: &Datapath) -> kernel::Lock {
        datapath.lock().clone()
    }
}

#[test]
fn second_writer_is_refused_with_the_pid_of_the_first() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let held = bed.lock();
    let error = kernel::lock(bed.dir()).expect_err("busy");
    let KernelError::Busy { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, Some(std::process::id()));
    let unload = kernel::unload(bed.dir());
    assert!(matches!(unload, Err(KernelError::Busy { .. })), "{unload:?}");
    drop(held);
    bed.lock();
}

#[test]
fn readers_need_no_lock() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let missing = Datapath::open_read_only(bed.dir());
    assert!(matches!(missing, Err(KernelError::NotLoaded { .. })), "{missing:?}");
    let _writer = bed.create(&small());
    let view = Datapath::open_read_only(bed.dir()).expect("view");
    assert!(view.vips().expect("vips").is_empty());
    assert!(view.flows().expect("flows").is_empty());
    let reasons = view.reasons().expect("reasons");
    assert!(reasons.iter().all(|(_, n)| *n == 0), "{reasons:?}");
}

#[test]
fn directory_outside_a_bpffs_is_refused() {
    let Some(_) = root_or_skip("kernel") else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let error = kernel::lock(&dir.path().join("balancer")).expect_err("no bpffs");
    assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    let bed = Bed::new();
    let error = kernel::lock(&bed.dir().join("too/deep")).expect_err("parent");
    assert!(matches!(error, KernelError::NoParent { .. }), "{error}");
}

#[test]
fn maps_of_another_version_are_not_adopted() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    drop(bed.create(&small()));
    let map = aya::maps::MapData::from_pin(bed.dir().join("maps/SETTINGS")).expect("SETTINGS");
    let mut settings: aya::maps::Array<_, [u8; size_of::<Settings>()]> =
        aya::maps::Map::Array(map).try_into().expect("array");
    let mut bytes = settings.get(&0, 0).expect("get");
    bytes[..4].copy_from_slice(&(ABI_VERSION + 7).to_ne_bytes());
    settings.set(0, bytes, 0).expect("set");
    let error = Datapath::open(&bed.lock()).expect_err("version");
    let KernelError::AbiVersion { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *expected), (ABI_VERSION + 7, ABI_VERSION));
    let error = Datapath::open_or_create(&bed.lock(), &small()).expect_err("not replaced");
    assert!(matches!(error, KernelError::AbiVersion { .. }), "{error}");
}

#[test]
fn first_load_that_was_cut_short_is_made_anew() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    for missing in ["maps/ROUTES", "progs/balancer_in"] {
        drop(bed.create(&small()));
        fs::remove_file(bed.dir().join(missing)).expect("remove");
        let error = Datapath::open(&bed.lock()).expect_err("incomplete");
        assert!(matches!(error, KernelError::Incomplete { .. }), "{error}");
        let datapath = Datapath::open_or_create(&bed.lock(), &small()).expect("made anew");
        assert_eq!(ids_below(&datapath).len(), map_names::ALL.len() + program_names::ALL.len());
        drop(datapath);
        kernel::unload(bed.dir()).expect("unload");
    }
    // What unload finds may be half made as well.
    drop(bed.create(&small()));
    fs::remove_file(bed.dir().join("maps/EPOCH")).expect("remove");
    let unloaded = kernel::unload(bed.dir()).expect("unload");
    assert_eq!(unloaded.maps.len(), map_names::ALL.len() - 1);
    assert!(!bed.dir().exists());
}

#[test]
fn limits_that_do_not_fit_into_memory_are_refused_before_anything_is_made() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let limits = Limits { flows: 1 << 28, ..small() };
    let error = Datapath::create(&bed.lock(), &limits).expect_err("memory");
    assert!(error.to_string().contains("limits.flows"), "{error}");
    assert!(!bed.dir().join("maps").exists());
}
