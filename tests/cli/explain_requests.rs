//! `balancer explain` with a request: what the rules of its route make of it.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{
    bad_input::files,
    run::{Ended, balancer_in},
};

const WORLD: &str = "\
{type: Dataplane, mesh: default, name: web, networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: web, kuma.io/protocol: http}}]}}
---
{type: Dataplane, mesh: default, name: v1, networking: {address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v1}}]}}
---
{type: Dataplane, mesh: default, name: v2, networking: {address: 10.0.0.3, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v2}}]}}
---
type: TrafficRoute
mesh: default
name: shop
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: backend}}]
conf:
  destination: {kuma.io/service: backend, version: v1}
  http:
  - match: {method: {exact: GET}, path: {prefix: /offers}, headers: {x-canary: {exact: 'yes'}}}
    modify:
      path: {rewritePrefix: /v2}
      responseHeaders: {add: [{name: x-served, value: canary}]}
    split:
    - {weight: 3, destination: {kuma.io/service: backend, version: v2}}
    - {weight: 1, destination: {kuma.io/service: nobody}}
  - {match: {path: {exact: /gone}}, destination: {kuma.io/service: nobody}}
";

fn explain(dir: &Path, more: &[&str]) -> Ended {
    let fixed = ["explain", "-f", ".", "--state", "state", "--from", "web", "--to", "backend"];
    let args: Vec<&str> = fixed.iter().chain(more).copied().collect();
    balancer_in(dir, &args, Stdio::null())
}

fn json_of(dir: &Path, more: &[&str]) -> Value {
    let ended = explain(dir, &[more, &["-o", "json"]].concat()).exits(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

const CANARY: [&str; 4] = ["--path", "/offers/7?x=1", "--header", "x-canary: yes"];

#[test]
fn a_request_is_answered_by_its_rule_in_json_and_in_words() {
    let dir = files(&[("world.yaml", WORLD)]);
    let answer = json_of(dir.path(), &CANARY);
    assert_eq!((&answer["layer"], &answer["decision"]), (&json!("l7"), &json!("forward")));
    assert_eq!(answer["policy"]["name"], "shop");
    assert_eq!(
        answer["rule"],
        json!({"index": 0, "match": {
            "method": {"exact": "GET"}, "path": {"prefix": "/offers"},
            "headers": [{"name": "x-canary", "value": {"exact": "yes"}}]
        }})
    );
    let shares: Vec<(&Value, &Value)> = answer["backends"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|backend| (&backend["share"], &backend["state"]))
        .collect();
    assert_eq!(shares, [(&json!(0.75), &json!("ok")), (&json!(0.25), &json!("invalid"))]);
    assert_eq!(
        answer["request"],
        json!({"method": "GET", "path": "/v2/7?x=1", "host": "backend", "headers": [["x-canary", "yes"]]})
    );
    assert_eq!(answer["response"], json!({"status": null, "headers": [["x-served", "canary"]]}));
    explain(dir.path(), &CANARY).exits(0).prints(&[
        "by TrafficRoute shop of mesh default, rule 0: path beginning with `/offers`, method `GET`, \
         header x-canary `yes`\n",
        "seen as GET /v2/7?x=1, host backend\n  x-canary: yes\n",
        "the answer is changed\n  x-served: canary\n",
        "backend version=v2       3   0.75  ok",
        "nobody                   1   0.25  invalid",
        "this share is answered with 500",
        "this version has no proxy that carries HTTP rules out",
    ]);
}

#[test]
fn what_no_rule_takes_and_what_leads_nowhere_is_said() {
    let dir = files(&[("world.yaml", WORLD)]);
    explain(dir.path(), &["--path", "/", "--method", "PUT"]).exits(0).prints(&[
        "by TrafficRoute shop of mesh default, which has no rule for it\n",
        "not rule 0 (TrafficRoute shop: conf.http[0]): path / does not begin with `/offers`; method \
         PUT is not `GET`; header x-canary is not there",
        "not rule 1 (TrafficRoute shop: conf.http[1]): path / is not `/gone`",
    ]);
    let gone = json_of(dir.path(), &["--path", "/gone"]);
    assert_eq!((&gone["decision"], &gone["request"]), (&json!("reject"), &Value::Null));
    assert_eq!(gone["response"]["status"], 500);
    explain(dir.path(), &["--path", "/gone"])
        .exits(0)
        .prints(&["reject", "answered with 500: the reference to the backend leads nowhere\n"]);
}

#[test]
fn all_is_a_table_of_matches_in_the_order_in_which_they_are_tried() {
    let dir = files(&[("world.yaml", WORLD)]);
    explain(dir.path(), &["--all"]).exits(0).prints(&[
        "this route tells requests apart",
        "ROUTE  HOST  MATCH ",
        "    1  *     path beginning with `/offers`, method `GET`, header x-canary `yes`  backend version=v2   0.75  ok ",
        "         path: the matched bytes become `/v2`\n",
        "    2  *     path `/gone` ",
        "    3  *     anything else ",
    ]);
    let routes = json_of(dir.path(), &["--all"])["routes"].take();
    let routes = routes.as_array().expect("a list");
    assert_eq!(routes.len(), 3);
    assert_eq!(routes[0]["request"]["path"], "/v2");
    assert_eq!(routes[1]["response"]["status"], 500);
    assert!(routes[2]["match"].is_null() && routes[2]["rule"].is_null());
    let yaml = explain(dir.path(), &["--all", "-o", "yaml"]);
    assert_eq!(yaml.code, Some(0), "{yaml}");
    let yaml: Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(yaml["routes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_request_that_no_client_could_send_is_a_usage_error_that_says_what_would_be_right() {
    let dir = files(&[("world.yaml", WORLD)]);
    for (args, words) in [
        (&["--path", "offers"][..], "the path `offers` must begin with /"),
        (&["--method", "GE T"], "`GE T` is no method"),
        (&["--header", "x-canary"], "write NAME:VALUE"),
        (&["--header", "x canary: yes"], "`x canary` is no name of a header"),
        (&["--host", "a b"], "`a b` is no host"),
        (&["--host", "a", "--header", "host: b"], "the host is given twice"),
    ] {
        explain(dir.path(), args).exits(2).says(&[words]);
    }
}

#[test]
fn a_plan_says_which_matches_change_and_that_connections_stay() {
    let new = WORLD.replace("weight: 3", "weight: 1").replace("{exact: /gone}", "{exact: /moved}");
    let dir = files(&[("old.yaml", WORLD), ("new.yaml", &new)]);
    let args = ["plan", "-f", "new.yaml", "--against", "old.yaml", "--state", "state"];
    let ended = balancer_in(dir.path(), &args, Stdio::null()).exits(0);
    let ended = ended.prints(&[
        "  2 HTTP rules\n",
        "  ~ match 1: path beginning with `/offers`, method `GET`, header x-canary `yes`\n    by TrafficRoute shop\n",
        "    backend version=v2  0.75 → 0.5\n",
        "  + match 2: path `/moved`\n",
        "  - match 2: path `/gone`\n",
        "  unchanged: 1 match\n",
        "  connections are forwarded as before\n",
        "note: this version has no proxy that carries HTTP rules out",
    ]);
    assert!(!ended.stdout.contains("slots move"), "{ended}");
    let json = balancer_in(dir.path(), &[&args[..], &["-o", "json"]].concat(), Stdio::null());
    let json: Value = serde_json::from_str(&json.exits(0).stdout).expect("JSON");
    let changed = json["routes"][0]["http"]["changed"].as_array().expect("a list");
    let fates: Vec<&str> = changed.iter().filter_map(|change| change["change"].as_str()).collect();
    assert_eq!(fates, ["changed", "added", "removed"]);
    assert_eq!(changed[0]["backends"][0]["share"], json!({"before": 0.75, "after": 0.5}));
}

/// Blocks of the pages that begin with a question are what its answer begins with.
#[test]
fn what_pages_say_that_explain_prints_is_what_it_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let state = tempfile::tempdir().expect("a temporary directory");
    let state = state.path().to_str().expect("a UTF-8 path").to_owned();
    let mut asked = 0;
    for page in ["docs/policies/traffic-route.md", "docs/policies/mesh-http-route.md", "README.md"]
    {
        let text = fs::read_to_string(root.join(page)).expect("the page is there");
        for block in text.split("```text\n$ balancer explain ").skip(1) {
            let block = block.split("\n```").next().unwrap_or_default();
            let (question, answer) = block.replace("\\\n", " ").split_once('\n').map_or_else(
                || panic!("{page} says no answer to {block}"),
                |(question, answer)| (question.to_owned(), answer.to_owned()),
            );
            let mut args: Vec<&str> = vec!["explain", "--state", &state];
            args.extend(question.split_whitespace().map(|word| word.trim_matches('\'')));
            let ended = balancer_in(&root, &args, Stdio::null()).exits(0);
            let told = answer.strip_suffix("\n…").map(|begin| ended.stdout.starts_with(begin));
            let same = told.unwrap_or_else(|| ended.stdout.trim_end() == answer.trim_end());
            assert!(same, "{page} says\n{answer}\nand it is\n{ended}");
            asked += 1;
        }
    }
    assert!(asked >= 5, "{asked} questions only");
}
