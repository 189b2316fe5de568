//! bpftool, which has a libbpf of its own.

use std::{collections::BTreeSet, fs};

use anyhow::Result;
use balancer_ebpf::abi::{map_names, program_names};
use balancer_user::kernel::object;
use harness::{Instance, NetNs, Shell, root_or_skip};
use serde_json::Value;

/// A name as the kernel keeps it (`BPF_OBJ_NAME_LEN`).
fn kept(name: &str) -> &str {
    &name[..name.len().min(15)]
}

#[test]
fn bpftool_loads_every_program_of_the_object_with_its_maps() -> Result<()> {
    let Some(root) = root_or_skip("loaders") else { return Ok(()) };
    // A bpffs and a directory that go away with what is in them, also when this fails.
    let node = NetNs::new(root, "bpftool")?;
    let instance = Instance::new(root, &node)?;
    let pins = instance.bpffs().join("programs");
    fs::create_dir_all(instance.state())?;
    let file = instance.state().join("datapath.o");
    fs::write(&file, object::datapath()?)?;

    let bpftool = |line: String| Shell::silent().run(&format!("bpftool {line}"));
    bpftool(format!("prog loadall {} {}", file.display(), pins.display()))?;
    let mut maps = BTreeSet::new();
    for &name in program_names::ALL {
        let shown = bpftool(format!("--json prog show pinned {}", pins.join(name).display()))?;
        let shown: Value = serde_json::from_str(&shown)?;
        let kind = if program_names::XDP.contains(&name) { "xdp" } else { "sched_cls" };
        assert_eq!(shown["type"], kind, "{shown}");
        // In full where bpftool has it from the BTF.
        assert!([name, kept(name)].contains(&shown["name"].as_str().unwrap_or("")), "{shown}");
        let ids = shown["map_ids"].as_array().unwrap_or_else(|| panic!("no maps: {shown}"));
        maps.extend(ids.iter().filter_map(Value::as_u64));
    }
    let mut names = BTreeSet::new();
    for id in maps {
        let shown: Value = serde_json::from_str(&bpftool(format!("--json map show id {id}"))?)?;
        names.extend(shown["name"].as_str().map(str::to_owned));
    }
    for name in map_names::ALL {
        assert!(names.contains(kept(name)), "no map {name} in {names:?}");
    }
    Ok(())
}
