//! Whatever lies in `policies/` loads.

use std::path::{Path, PathBuf};

use harness::{Instance, Topology, root_or_skip};

#[test]
fn every_example_and_every_world_loads() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Topology::builder().host("web-1", &["10.71.1.10"]).build(root).expect("a node");
    let examples = examples();
    assert!(examples.len() >= 5, "the examples are found: {examples:?}");
    for path in examples {
        // Each on its own and with maps of the default sizes, as somebody would who tries it.
        let instance = Instance::new(root, &bed.node).expect("an instance");
        let complete = path.is_dir() || has_a_mesh(&path);
        let world = world_of(&path).display().to_string();
        let path = path.display().to_string();
        let mut args = vec!["load", "--attach", "v-web-1=tc", "-f", &path];
        if !complete {
            args.extend(["-f", &world]);
        }
        instance.balancer(&args).expect("load");
        let vips = instance.json(&["show", "vips"]).expect("show vips");
        assert!(vips.as_array().is_some_and(|rows| !rows.is_empty()), "{path} has no VIP: {vips}");
        instance.balancer(&["unload"]).expect("unload");
    }
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// Whether an example brings its own world, as those do that show another form of it.
fn has_a_mesh(path: &Path) -> bool {
    read(path).lines().any(|line| line == "type: Mesh" || line == "kind: Mesh")
}

/// The world of the mesh that an example is of, which has its name, if there is one.
fn world_of(path: &Path) -> PathBuf {
    let worlds = policies().join("worlds");
    let text = if path.is_dir() { String::new() } else { read(path) };
    let named = text.lines().find_map(|line| line.strip_prefix("mesh: "));
    let world = named.map(|mesh| worlds.join(mesh)).filter(|world| world.is_dir());
    world.unwrap_or_else(|| worlds.join("redis"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("an example")
}

/// A world is a directory, any other example a file.
fn examples() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![policies()];
    while let Some(folder) = folders.pop() {
        let in_worlds = folder.ends_with("worlds");
        for entry in std::fs::read_dir(&folder).expect("a directory").flatten() {
            let path = entry.path();
            let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
            if path.is_dir() && !in_worlds {
                folders.push(path);
            } else if path.is_dir() || yaml {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
