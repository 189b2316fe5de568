//! Bad input that needs no kernel to be refused: each says what is wrong, where, and what to
//! do, and exits with 1.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
};

use crate::run::{Ended, balancer_in};

const MESH: &str = "type: Mesh\nname: default\n";

/// A Dataplane of service redis at `address`.
fn dataplane(name: &str, address: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: {address}\n  \
         inbound:\n  - port: 6379\n    tags: {{kuma.io/service: redis}}\n"
    )
}

/// A TrafficRoute with `conf` as given, indented by two.
fn route(name: &str, conf: &str) -> String {
    format!(
        "type: TrafficRoute\nmesh: default\nname: {name}\n\
         sources: [{{match: {{kuma.io/service: '*'}}}}]\n\
         destinations: [{{match: {{kuma.io/service: redis}}}}]\nconf:\n{conf}"
    )
}

const SPLIT: &str = "  split:\n  - {weight: 1, destination: {kuma.io/service: redis}}\n";

pub(crate) fn files(texts: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in texts {
        fs::write(dir.path().join(name), text).expect("the file can be written");
    }
    dir
}

pub(crate) fn check(dir: &Path, args: &[&str]) -> Ended {
    let args: Vec<&str> = ["check"].iter().chain(args).copied().collect();
    balancer_in(dir, &args, Stdio::null())
}

/// Checks one document beside a valid mesh; the finding must begin at `place` (`line:column`).
#[track_caller]
fn refused(document: &str, place: &str, parts: &[&str]) {
    let dir = files(&[("mesh.yaml", MESH), ("bad.yaml", document)]);
    let place = format!("bad.yaml:{place}");
    check(dir.path(), &["-f", "."])
        .exits(1)
        .prints(&["error", &place])
        .prints(parts)
        .says(&["in 2 files: 1 error"]);
}

#[test]
fn valid_policies_are_accepted() {
    let texts = [
        ("mesh.yaml", MESH),
        ("redis.yaml", &dataplane("redis-1", "10.0.0.21")),
        ("route.yaml", &route("canary", SPLIT)),
    ];
    let dir = files(&texts);
    let ended = check(dir.path(), &["-f", "."]).exits(0).says(&["3 resources in 3 files"]);
    assert_eq!(ended.stdout, "");
}

#[test]
fn unknown_kind_is_refused_with_the_kind_that_is_meant() {
    let document = route("canary", SPLIT).replace("TrafficRoute", "TraficRoute");
    refused(&document, "1:7", &["TraficRoute", "TrafficRoute"]);
}

#[test]
fn unknown_field_warns_and_is_an_error_where_asked() {
    let dir = files(&[
        ("mesh.yaml", MESH),
        ("a.yaml", &route("canary", &format!("{SPLIT}  spilt: 1\n"))),
    ]);
    check(dir.path(), &["-f", "."]).exits(0).prints(&["warning", "spilt", "split", "a.yaml:9:3"]);
    check(dir.path(), &["-f", ".", "--deny-unknown"]).exits(1).prints(&["error", "spilt"]);
}

#[test]
fn wrong_type_is_refused_at_the_value() {
    let split = "  split:\n  - weight: many\n    destination: {kuma.io/service: redis}\n";
    refused(&route("canary", split), "8:13", &["conf.split[0].weight", "many"]);
}

#[test]
fn duplicate_key_is_refused_with_both_places() {
    let document = format!("{}name: again\n", dataplane("redis-1", "10.0.0.21"));
    refused(&document, "9:1", &["name", "bad.yaml:3"]);
}

#[test]
fn two_resources_of_one_name_are_refused_with_both_places() {
    let document =
        format!("{}---\n{}", dataplane("redis-1", "10.0.0.21"), dataplane("redis-1", "10.0.0.22"));
    let dir = files(&[("mesh.yaml", MESH), ("bad.yaml", &document)]);
    check(dir.path(), &["-f", "."]).exits(1).prints(&["error", "redis-1", "bad.yaml:"]);
}

#[test]
fn weights_that_sum_to_nothing_or_overflow_are_refused() {
    let zero = "  split:\n  - {weight: 0, destination: {kuma.io/service: redis}}\n";
    let dir = files(&[("mesh.yaml", MESH), ("bad.yaml", &route("canary", zero))]);
    check(dir.path(), &["-f", "."]).exits(1).prints(&["error", "bad.yaml:8:", "conf.split"]);
    let two = "  split:\n  - {weight: 4294967295, destination: {kuma.io/service: redis}}\n  \
               - {weight: 1, destination: {kuma.io/service: redis, version: '2'}}\n";
    let dir = files(&[("mesh.yaml", MESH), ("bad.yaml", &route("canary", two))]);
    check(dir.path(), &["-f", "."]).exits(1).prints(&["error", "bad.yaml:", "conf.split"]);
    let wide = "  split:\n  - {weight: 4294967296, destination: {kuma.io/service: redis}}\n";
    let dir = files(&[("mesh.yaml", MESH), ("bad.yaml", &route("canary", wide))]);
    check(dir.path(), &["-f", "."]).exits(1).prints(&["error", "bad.yaml:8:", "weight"]);
}

#[test]
fn vip_claimed_twice_is_refused_with_both_claims() {
    let claim = |name: &str, address: &str, service: &str| {
        format!(
            "{}  outbound:\n  - {{address: 240.1.1.1, port: 6379, tags: {{kuma.io/service: {service}}}}}\n",
            dataplane(name, address)
        )
    };
    let dir = files(&[
        ("mesh.yaml", MESH),
        ("a.yaml", &claim("a", "10.0.0.1", "redis")),
        ("b.yaml", &claim("b", "10.0.0.2", "cache")),
    ]);
    check(dir.path(), &["-f", "."]).exits(1).prints(&[
        "error",
        "240.1.1.1:6379",
        "redis",
        "cache",
        "a.yaml:10:5",
        "b.yaml:10:5",
    ]);
}

#[test]
fn address_that_is_none_is_refused() {
    refused(&dataplane("redis-1", "10.0.0.300"), "5:12", &["networking.address", "10.0.0.300"]);
}

#[test]
fn empty_file_says_that_it_holds_nothing() {
    let dir = files(&[("empty.yaml", "# nothing yet\n"), ("mesh.yaml", MESH)]);
    check(dir.path(), &["-f", "empty.yaml"]).exits(1).says(&["no resource in empty.yaml", "hint:"]);
    check(dir.path(), &["-f", "."]).exits(0).says(&["empty.yaml holds no resource"]);
}

#[test]
fn binary_file_is_refused() {
    let dir = files(&[("bad.yaml", "type: Mesh\0name: default\n")]);
    check(dir.path(), &["-f", "bad.yaml"]).exits(1).says(&["bad.yaml", "binary", "offset 10"]);
}

#[test]
fn file_of_50_mb_is_refused_without_being_read() {
    let dir = files(&[("mesh.yaml", MESH)]);
    let big = File::create(dir.path().join("big.yaml")).expect("the file can be made");
    big.set_len(50_000_000).expect("the file can be sparse");
    check(dir.path(), &["-f", "."]).exits(1).says(&["big.yaml", "16 MiB"]);
}

#[test]
fn standard_input_of_50_mb_is_refused() {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let line = [b"# ".as_slice(), &[b'x'; 997], b"\n"].concat();
    for _ in 0..50_000 {
        file.write_all(&line).expect("the file can be written");
    }
    std::io::Seek::rewind(&mut file).expect("the file can be rewound");
    balancer_in(Path::new("/"), &["check", "-f", "-"], file.into()).exits(1).says(&["-", "16 MiB"]);
}

#[test]
fn missing_path_and_directory_without_policies_are_refused() {
    let dir = files(&[("notes.txt", "")]);
    check(dir.path(), &["-f", "nowhere"]).exits(1).says(&["nowhere", "no such file or directory"]);
    check(dir.path(), &["-f", "."]).exits(1).says(&["*.yaml"]);
}

#[test]
fn symlink_loop_is_refused() {
    let dir = files(&[("mesh.yaml", MESH)]);
    symlink(".", dir.path().join("again")).expect("the link can be made");
    check(dir.path(), &["-f", "."]).exits(1).says(&["again", "loop"]);
    symlink("b.yaml", dir.path().join("a.yaml")).expect("the link can be made");
    symlink("a.yaml", dir.path().join("b.yaml")).expect("the link can be made");
    check(dir.path(), &["-f", "a.yaml"]).exits(1).says(&["a.yaml"]);
}

/// A link whose target is gone is what a directory being removed looks like to its reader.
#[test]
fn file_that_disappears_is_refused() {
    let dir = files(&[("mesh.yaml", MESH)]);
    symlink("gone.yaml", dir.path().join("link.yaml")).expect("the link can be made");
    check(dir.path(), &["-f", "."]).exits(1).says(&["link.yaml"]);
}

#[test]
fn every_violation_is_reported_in_the_form_of_the_contract() {
    let two = "  split:\n  - {destination: {kuma.io/service: redis}}\n  - {weight: 1, destination: {version: '2'}}\n";
    let dir =
        files(&[("mesh.yaml", MESH), ("b.yaml", &route("canary", two)), ("c.yaml", "a: [\n")]);
    let ended = check(dir.path(), &["-f", ".", "-o", "json"]).exits(1);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("one JSON document");
    assert_eq!(json["valid"], false);
    let resources = json["resources"].as_array().expect("a list");
    assert_eq!(resources.len(), 3, "{json:#}");
    let keys: Vec<&String> = resources[0].as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        ["kind", "mesh", "namespace", "name", "file", "document", "valid", "violations"]
    );
    let route = resources.iter().find(|r| r["kind"] == "TrafficRoute").expect("the route");
    assert_eq!(
        (&route["name"], &route["mesh"], &route["namespace"]),
        (&"canary".into(), &"default".into(), &serde_json::Value::Null)
    );
    let fields: Vec<&str> = route["violations"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|violation| violation["field"].as_str())
        .collect();
    assert!(fields.contains(&"conf.split[0].weight"), "{fields:?}");
    assert!(
        fields.iter().any(|field| field.starts_with("conf.split[1].destination")),
        "{fields:?}"
    );
    let broken = resources.iter().find(|r| r["kind"].is_null()).expect("the broken one");
    assert!(broken["name"].is_null() && broken["mesh"].is_null(), "{broken:#}");
    let violations = broken["violations"].as_array().expect("a list");
    assert_eq!(violations.len(), 1, "{broken:#}");
    assert!(violations[0]["line"].is_u64() && violations[0]["column"].is_u64(), "{broken:#}");
    assert_eq!(violations[0]["severity"], "error");
}

#[test]
fn json_and_yaml_say_the_same() {
    let dir = files(&[("mesh.yaml", MESH), ("r.yaml", &route("canary", SPLIT))]);
    let json = check(dir.path(), &["-f", ".", "-o", "json"]);
    let yaml = check(dir.path(), &["-f", ".", "-o", "yaml"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let yaml: serde_json::Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(json, yaml);
}

#[test]
fn configuration_with_an_unknown_key_is_wrong_usage() {
    let dir = files(&[("mesh.yaml", MESH), ("config.yaml", "zone: east\nlimit: {flows: 1}\n")]);
    let args =
        ["explain", "-f", "mesh.yaml", "--config", "config.yaml", "--from", "a", "--to", "b"];
    balancer_in(dir.path(), &args, Stdio::null()).exits(2).says(&[
        "config.yaml:2:1",
        "limit",
        "limits",
    ]);
}

#[test]
fn configuration_with_an_impossible_range_of_ports_says_where_and_what_to_write() {
    for (ports, said) in [
        ("40000-39999", ["`40000-39999` is empty", "write `39999-40000`"]),
        ("0-99", ["begins with port 0", "write `1-99`"]),
        ("60000-70000", ["ends above 65535", "`61000-65535`"]),
        ("some", ["`some` is no range of ports", "`61000-65535`"]),
    ] {
        let config = format!("zone: east\nsnat:\n  ports: {ports}\n");
        let dir = files(&[("mesh.yaml", MESH), ("config.yaml", &config)]);
        for args in [
            &["config", "-f", "config.yaml"][..],
            &["load", "-f", "mesh.yaml", "--config", "config.yaml"],
        ] {
            balancer_in(dir.path(), args, Stdio::null())
                .exits(2)
                .says(&["config.yaml:3:10", "snat.ports"])
                .says(&said);
        }
    }
    let config = "attach:\n- {interface: a, hook: xdp, mode: dsr-ipip, snat: true}\n";
    let dir = files(&[("config.yaml", config)]);
    balancer_in(dir.path(), &["config", "-f", "config.yaml"], Stdio::null()).exits(2).says(&[
        "config.yaml:2:51",
        "attach[0].snat",
        "answer clients by themselves",
    ]);
}

#[test]
fn attach_with_words_that_there_are_not_is_wrong_usage() {
    for (attach, said) in [
        ("a=tc:snta", "the hook tc has no option `snta`; write `a=tc`, or `a=tc:snat`"),
        ("a=xdp:snat:dsr-l2", "write `a=xdp:snat` or `a=xdp:dsr-l2`"),
    ] {
        let load = ["load", "-f", "mesh.yaml", "--attach", attach];
        balancer_in(Path::new("/"), &load, Stdio::null()).exits(2).says(&[said]);
    }
}

#[test]
fn input_that_cannot_be_read_has_the_form_of_the_contract_too() {
    let dir = files(&[("empty.yaml", ""), ("latin1.yaml", "")]);
    fs::write(dir.path().join("latin1.yaml"), b"type: Mesh\nname: caf\xe9\n").expect("written");
    for (file, line, message) in [
        ("empty.yaml", serde_json::Value::Null, "no resource in empty.yaml"),
        ("latin1.yaml", 2.into(), "is not UTF-8"),
        ("absent.yaml", serde_json::Value::Null, "no such file"),
    ] {
        let ended = check(dir.path(), &["-f", file, "-o", "json"]).exits(1).says(&[message]);
        let found: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(found["valid"], false, "{found}");
        let resource = &found["resources"][0];
        assert_eq!(resource["kind"], serde_json::Value::Null, "{found}");
        assert_eq!(resource["file"], file, "{found}");
        assert_eq!(resource["violations"][0]["line"], line, "{found}");
        let text = resource["violations"][0]["message"].as_str().expect("a message");
        assert!(text.contains(message), "{found}");
    }
}
