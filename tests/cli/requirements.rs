//! `balancer status --requirements`, on a kernel that every suite runs on: so nothing that is
//! needed is lacking. Kernels that are too old are judged beside the code.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use harness::{Instance, NetNs, Shell, root_or_skip};

use crate::run::Ended;

const PROBE: [&str; 2] = ["status", "--requirements"];

fn run(instance: &Instance<'_>, args: &[&str]) -> Ended {
    let output = instance.output(args).expect("balancer can be started");
    Ended::new(instance.line(args), output)
}

#[test]
fn requirements_are_printed_before_anything_is_loaded() {
    let Some(root) = root_or_skip("cli") else { return };
    let node = NetNs::new(root, "requirements").expect("a namespace");
    let instance = Instance::new(root, &node).expect("an instance");
    let ended = run(&instance, &PROBE).exits(0).prints(&["FEATURE", "WITHOUT IT", "mmapable"]);
    assert_eq!(ended.stderr, "", "{ended}");
    for (feature, first) in [("mmapable arrays", "5.5"), ("atomic operations", "5.12")] {
        let line = ended.stdout.lines().find(|line| line.starts_with(feature)).expect(feature);
        assert!(line.contains(&format!("  yes   {first} ")), "{line}");
    }
    assert!(ended.stdout.contains("balancer runs"), "{ended}");

    let json = instance.json(&PROBE).expect("JSON on stdout");
    assert_eq!(json["runs"], true, "{json:#}");
    assert_eq!(json["programs"], true, "{json:#}");
    let features = json["features"].as_array().expect("a list");
    assert!(features.len() > 20, "{json:#}");
    for row in features {
        let name = row["feature"].as_str().expect("a name");
        assert!(row["without_it"].as_str().is_some_and(|text| !text.is_empty()), "{row:#}");
        if row["needed"] == true && name != "clsact with BPF filters" {
            assert_eq!(row["here"], true, "{row:#}");
        }
    }
    let has = |wanted: &str| {
        let row = features.iter().find(|row| row["feature"] == wanted).expect(wanted);
        row["here"] == true
    };
    assert!(has("tcx") || has("clsact with BPF filters"), "{json:#}");
    run(&instance, &["status"]).exits(0).prints(&["nothing is loaded", "\nKernel\n  tcx: "]);
}

#[test]
fn missing_bpf_file_system_is_named_with_the_command() {
    let Some(root) = root_or_skip("cli") else { return };
    let node = NetNs::new(root, "requirements").expect("a namespace");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let pins = elsewhere.path().join("pins");
    let mut command = node.command(harness::instance::balancer_binary());
    let output =
        command.args(PROBE).arg("--bpffs").arg(&pins).output().expect("balancer can be started");
    Ended::new("balancer status --requirements --bpffs DIR".to_owned(), output)
        .exits(3)
        .prints(&["a BPF file system", "balancer does not run"])
        .says(&["not ready for balancer: it lacks a BPF file system", "mount -t bpf bpf"]);
    assert!(!pins.exists(), "a probe made its directory");
}

#[test]
fn probes_leave_nothing_behind() {
    let Some(root) = root_or_skip("cli") else { return };
    let node = NetNs::new(root, "requirements").expect("a namespace");
    let instance = Instance::new(root, &node).expect("an instance");
    let silent = Shell::silent();
    let hooks = || {
        let lines = ["tc qdisc show", "tc filter show dev lo ingress", "ip -d link show"];
        node.run(|| lines.map(|line| silent.run(line).expect(line)))
    };
    let (before, hooks_before) = (nameless(), hooks());
    run(&instance, &PROBE).exits(0);
    assert_eq!(hooks(), hooks_before, "a probe left something on an interface");
    let pins: Vec<_> = std::fs::read_dir(instance.bpffs()).expect("the bpffs").flatten().collect();
    // The kernel puts files of its own there, which end in `.debug`.
    assert!(pins.iter().all(|pin| pin.file_name().to_string_lossy().ends_with(".debug")));
    // Freed some time after the last descriptor is closed. What other processes load meanwhile
    // has names, but for probes, which are as short-lived.
    let begun = Instant::now();
    let left: BTreeSet<_> = nameless().difference(&before).copied().collect();
    while left.intersection(&nameless()).next().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{left:?} are left of {before:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Kind and id of each program and map without a name, as those of probes are.
fn nameless() -> BTreeSet<(&'static str, u32)> {
    let programs = aya::programs::loaded_programs().flatten();
    let maps = aya::maps::loaded_maps().flatten();
    programs
        .filter(|program| program.name().is_empty())
        .map(|program| ("program", program.id()))
        .chain(maps.filter(|map| map.name().is_empty()).map(|map| ("map", map.id())))
        .collect()
}
