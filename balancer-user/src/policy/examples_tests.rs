//! Every file below `policies/` is read as its users read it.

use std::path::{Path, PathBuf};

use super::{ReadOptions, Reading, gather, read};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn reading(paths: &[PathBuf]) -> Reading {
    let texts = gather(paths).expect("the examples can be read");
    read(texts, &ReadOptions { deny_unknown: true, ..ReadOptions::default() })
}

/// All files below `policies/` that hold policies, at least as many as are named in the issue.
fn files() -> Vec<PathBuf> {
    let texts = gather(&[policies()]).expect("the examples can be read");
    texts.into_iter().map(|text| PathBuf::from(text.name)).collect()
}

#[test]
fn all_examples_together_have_no_error() {
    let reading = reading(&[policies()]);
    let errors: Vec<_> = reading.report.violations().filter(|f| f.is_error()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(reading.set.traffic_routes.len() >= 13);
}

#[test]
fn every_example_is_read_with_its_world_and_only_old_forms_warn() {
    for file in files() {
        let body = std::fs::read_to_string(&file).expect("an example");
        let alone = body.contains("Mesh\n") || file.starts_with(policies().join("worlds"));
        let of_backend = body.contains("mesh: backend\n");
        let world = policies().join(if of_backend { "worlds/backend" } else { "worlds/redis" });
        let paths = if alone { vec![file.clone()] } else { vec![world.clone(), file.clone()] };
        let reading = reading(&paths);
        assert!(reading.report.valid(), "{}: {:#?}", file.display(), reading.report);
        let old = file.file_name().is_some_and(|name| name.to_string_lossy().contains("0.5"));
        let warnings: Vec<_> = reading.report.violations().collect();
        assert_eq!(!warnings.is_empty(), old, "{}: {warnings:#?}", file.display());
        assert_eq!(reading.set.traffic_routes.is_empty(), !body.contains("TrafficRoute\n"));
    }
}

#[test]
fn every_example_begins_with_how_to_run_it() {
    for file in files() {
        let body = std::fs::read_to_string(&file).expect("an example");
        assert!(body.starts_with("# "), "{}", file.display());
        let commands: Vec<&str> = body.lines().filter(|l| l.starts_with("#   balancer ")).collect();
        for command in &commands {
            for word in command.split_whitespace().filter(|word| word.starts_with("policies/")) {
                let path = policies().join("..").join(word);
                assert!(path.exists(), "{}: {word} is not there", file.display());
            }
        }
        if [
            "traffic-route",
            "mesh-tcp-route",
            "mesh-http-route",
            "mesh-load-balancing-strategy",
            "mesh-service",
            "mesh-external-service",
            "mesh-multi-zone-service",
            "external-service",
        ]
        .iter()
        .any(|of| file.starts_with(policies().join(of)))
        {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(commands.iter().any(|command| command.contains(name)), "{}", file.display());
        }
    }
}
