//! libbpf, by libbpf-rs, and what aya makes of the same packet.

use std::collections::BTreeSet;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use balancer_ebpf::{
    abi::{PORT_WORDS, map_names, program_names},
    reason::Reason,
};
use balancer_user::kernel::object;
use harness::root_or_skip;
use libbpf_rs::{
    MapCore as _, MapFlags, MapType, Object, ObjectBuilder, ProgramInput, ProgramType,
};

use super::packet::{REASON, TC_ACT_UNSPEC, port, to_no_vip};

/// What a packet met: the verdict, the packet, and each reason's count.
#[derive(Debug, PartialEq, Eq)]
struct Met {
    verdict: u32,
    packet: Vec<u8>,
    reasons: Vec<u64>,
}

/// The release object, loaded by libbpf as it stands.
fn load() -> Object {
    let object = object::datapath().expect("built with the object");
    let open = ObjectBuilder::default().open_memory(object).expect("libbpf reads the object");
    open.load().expect("the kernel takes maps and programs")
}

fn by_libbpf(object: &Object, packet: &[u8]) -> Met {
    let map = |name: &str| object.maps().find(|map| map.name() == name).expect("loaded");
    let (word, bits) = port();
    map(map_names::PORTS)
        .update(&word.to_ne_bytes(), &bits.to_ne_bytes(), MapFlags::ANY)
        .expect("PORTS");
    let program = object
        .progs_mut()
        .find(|program| program.name() == program_names::INGRESS)
        .expect("loaded");
    let mut data = vec![0; packet.len()];
    let verdict = program
        .test_run(ProgramInput {
            data_in: Some(packet),
            data_out: Some(&mut data),
            ..ProgramInput::default()
        })
        .expect("a test run")
        .return_value;
    let reasons = map(map_names::REASONS);
    let count = |reason: u32| {
        let cpus = reasons.lookup_percpu(&reason.to_ne_bytes(), MapFlags::ANY).expect("REASONS");
        let cpus = cpus.expect("an array has all its elements");
        cpus.iter().map(|cpu| u64::from_ne_bytes(cpu[..8].try_into().expect("a count"))).sum()
    };
    let reasons = (0..Reason::ALL.len() as u32).map(count).collect();
    Met { verdict, packet: data, reasons }
}

fn by_aya(packet: &[u8]) -> Met {
    let object = object::datapath().expect("built with the object");
    let mut ebpf: Ebpf = EbpfLoader::new().btf(None).load(object).expect("aya reads the object");
    let (word, bits) = port();
    let ports = ebpf.map_mut(map_names::PORTS).expect("PORTS");
    Array::<_, u64>::try_from(ports).expect("words").set(word, bits, 0).expect("PORTS");
    let program: &mut SchedClassifier = ebpf
        .program_mut(program_names::INGRESS)
        .expect("in the object")
        .try_into()
        .expect("a classifier");
    program.load().expect("the kernel takes the program");
    let mut data = vec![0; packet.len()];
    let options = TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut data),
        ..TestRunOptions::default()
    };
    let verdict = program.test_run(options).expect("a test run").return_value;
    let reasons = ebpf.map(map_names::REASONS).expect("REASONS");
    let reasons = PerCpuArray::<_, u64>::try_from(reasons).expect("counts");
    let count = |reason: u32| reasons.get(&reason, 0).expect("REASONS").iter().sum();
    let reasons = (0..Reason::ALL.len() as u32).map(count).collect();
    Met { verdict, packet: data, reasons }
}

#[test]
fn libbpf_loads_every_map_and_program_of_the_object() {
    let Some(_) = root_or_skip("loaders") else { return };
    let object = load();
    let maps: BTreeSet<_> = object.maps().map(|map| map.name().to_os_string()).collect();
    for name in map_names::ALL {
        assert!(maps.contains(std::ffi::OsStr::new(name)), "no {name} in {maps:?}");
    }
    let programs: Vec<_> = object
        .progs()
        .map(|program| {
            let name = program.name().to_str().expect("UTF-8");
            let edge = program_names::XDP.contains(&name);
            let kind = if edge { ProgramType::Xdp } else { ProgramType::SchedCls };
            assert_eq!(program.prog_type(), kind, "{name}");
            name
        })
        .collect();
    let expected: BTreeSet<_> = program_names::ALL.iter().copied().collect();
    assert_eq!(programs.iter().copied().collect::<BTreeSet<_>>(), expected, "{programs:?}");
    // What user space gives the loader otherwise stands in the object: sizes, inner maps, flags.
    let map = |name: &str| object.maps().find(|map| map.name() == name).expect("loaded");
    let ports = map(map_names::PORTS);
    assert_eq!((ports.map_type(), ports.max_entries()), (MapType::Array, PORT_WORDS as u32));
    assert_eq!(map(map_names::ARENA).map_type(), MapType::ArrayOfMaps);
}

#[test]
fn packet_meets_the_same_fate_whether_libbpf_or_aya_loads() {
    let Some(_) = root_or_skip("loaders") else { return };
    let packet = to_no_vip();
    let met = by_libbpf(&load(), &packet);
    assert_eq!(met.verdict, TC_ACT_UNSPEC);
    assert_eq!(met.packet, packet, "the packet is not ours and stays as it is");
    for (reason, count) in Reason::ALL.iter().zip(&met.reasons) {
        assert_eq!(*count, u64::from(*reason == REASON), "{}", reason.name());
    }
    assert_eq!(met, by_aya(&packet));
}
