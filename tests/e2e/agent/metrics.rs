//! What the agent shows, as Debian's prometheus and its promtool read it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{NetNs, patience, root_or_skip};

use super::world::{World, replace};
use crate::bed::{MAGLEV, VIP4, split, version_of};

/// In the namespace of a test's node, where nobody else listens.
const AGENT: &str = "127.0.0.1:9901";
const PROMETHEUS: &str = "127.0.0.1:9090";
const CONFIGURED: &str = "metrics: 127.0.0.1:9901\n";

/// Status and body of a page in the namespace.
fn get(ns: &NetNs, address: &str, path: &str) -> Result<(u16, String)> {
    let address: SocketAddr = address.parse()?;
    ns.run(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(patience(Duration::from_secs(10))))?;
        // In HTTP/1.0 the body ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer with a head")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, body.to_owned()))
    })
}

/// The agent's page.
fn page(ns: &NetNs) -> String {
    let (status, body) = get(ns, AGENT, "/metrics").expect("a page");
    assert_eq!(status, 200, "{body}");
    body
}

/// The value of the only line of `page` that begins with `family` and has all of `labels`.
fn value(page: &str, family: &str, labels: &[&str]) -> f64 {
    let is_of = |line: &&str| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let lines: Vec<&str> = page.lines().filter(is_of).collect();
    let [line] = lines[..] else { panic!("{family} {labels:?} is in {lines:?} of\n{page}") };
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// Runs promtool on `input`; what it finds fault with is a panic.
fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, which `cargo xtask setup` installs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to promtool");
    let output = child.wait_with_output().expect("promtool's end");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    // Of metrics it says what it does not like, and goes on.
    if args.contains(&"metrics") {
        assert_eq!(said(&output.stderr) + &said(&output.stdout), "");
    }
}

/// Debian's prometheus in a namespace; it ends with the test.
struct Prometheus<'a> {
    ns: &'a NetNs,
    child: Child,
}

impl<'a> Prometheus<'a> {
    fn start(ns: &'a NetNs, home: &Path) -> Self {
        let config = home.join("prometheus.yaml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: balancer\n  \
             static_configs: [{{targets: ['{AGENT}']}}]\n"
        );
        fs::write(&config, text).expect("write its configuration");
        let log = fs::File::create(home.join("prometheus.log")).expect("a log");
        let child = ns
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", home.join("tsdb").display()))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus, which `cargo xtask setup` installs");
        Self { ns, child }
    }

    /// The value of each series of a query that needs no escaping: the label `by` → value.
    fn query(&self, query: &str, by: &str) -> Result<BTreeMap<String, f64>> {
        let (status, body) = get(self.ns, PROMETHEUS, &format!("/api/v1/query?query={query}"))?;
        ensure!(status == 200, "{status}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let series = answer["data"]["result"].as_array().context("a list of series")?;
        series
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().context("a value")?.parse()?;
                Ok((one["metric"][by].as_str().unwrap_or_default().to_owned(), value))
            })
            .collect()
    }

    /// Waits until a query answers `expected`.
    fn wait(&self, query: &str, by: &str, expected: &BTreeMap<String, f64>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.query(query, by);
            if answer.as_ref().is_ok_and(|found| found == expected) {
                return Ok(());
            }
            if begun.elapsed() > patience(Duration::from_secs(30)) {
                bail!("{query} answers {answer:?}, not {expected:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects so often from `web-1`: connections by version.
fn dial(world: &World, ports: std::ops::Range<u16>) -> BTreeMap<String, f64> {
    let mut met = BTreeMap::new();
    for (_, greeting) in world.bed.dial("web-1", VIP4, ports) {
        *met.entry(format!("version={}", version_of(&greeting.name))).or_default() += 1.0;
    }
    met
}

#[test]
fn prometheus_reads_as_many_connections_as_were_made() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let canary = split("redis-canary", "*", "redis", &[("1.0", 3), ("2.0", 1)], MAGLEV);
    replace(&world.policies().join("route.yaml"), &canary);
    let instance = world.bed.instance();
    let node = &world.bed.topology.node;
    let config = world.config(CONFIGURED);
    let agent = harness::Agent::start(&instance, &config, &[]).expect("an agent");
    let prometheus = Prometheus::start(node, world.home.path());
    let mut met = dial(&world, 20_000..20_080);
    assert_eq!(met.len(), 2, "{met:?}");

    let of = format!("{{vip=\"{VIP4}\"}}");
    let connections = format!("sum%20by%20(tags)%20(balancer_connections_total{of})");
    prometheus.wait(&connections, "tags", &met).expect("connections by backend");
    prometheus.wait("up", "job", &BTreeMap::from([("balancer".into(), 1.0)])).expect("up");
    let text = page(node);
    promtool(&["check", "metrics"], &text);
    let backend = [&format!("vip=\"{VIP4}\""), "tags=\"version=1.0\""];
    for (family, least) in [("balancer_packets_total", 3.0), ("balancer_bytes_total", 200.0)] {
        for way in ["direction=\"in\"", "direction=\"out\""] {
            let counted = value(&text, family, &[backend[0], backend[1], way]);
            assert!(counted >= least * met["version=1.0"], "{family} {way}: {counted}");
        }
    }
    let new = value(&text, "balancer_reason_packets_total", &["reason=\"new_flow\""]);
    assert!(new >= 80.0, "{new}");
    let tables = instance.json(&["show", "tables"]).expect("the tables");
    let tables = tables.as_array().expect("a list of tables");
    for slots in [251, 1021] {
        let shown = tables.iter().filter(|table| table["slots"] == slots).count();
        let counted = value(&text, "balancer_tables", &[&format!("slots=\"{slots}\"")]);
        assert_eq!(counted, shown as f64, "{slots} slots: {tables:#?}");
    }
    assert_eq!(value(&text, "balancer_set_valid", &[]), 1.0);
    let links = |state| value(&text, "balancer_links", &[state]);
    assert!(links("wanted") > 0.0 && links("wanted") == links("attached"), "{text}");
    assert_eq!(get(node, AGENT, "/readyz").expect("an answer").0, 200);
    assert_eq!(get(node, AGENT, "/metric").expect("an answer").0, 404);

    // Other backends: other counters in the maps, and the same series beside new ones.
    let before = value(&text, "balancer_epoch", &[]);
    world.route("3.0");
    let begun = Instant::now();
    while value(&page(node), "balancer_epoch", &[]) == before {
        assert!(begun.elapsed() < patience(Duration::from_secs(20)), "{}", agent.log());
        thread::sleep(Duration::from_millis(10));
    }
    met.extend(dial(&world, 20_100..20_110));
    assert_eq!(met["version=3.0"], 10.0);
    prometheus.wait(&connections, "tags", &met).expect("connections of both sets");
    let flips = value(&page(node), "balancer_publish_flip_seconds_count", &[]);
    assert_eq!(value(&page(node), "balancer_publishes_total", &["\"changed\""]), flips);
    promtool(&["check", "metrics"], &page(node));

    // A file with an error: the set stays, and the metric says so.
    replace(&world.policies().join("route.yaml"), "type: TrafficRoute\nmesh: default\n");
    let broken = BTreeMap::from([("balancer".into(), 0.0)]);
    prometheus.wait("balancer_set_valid", "job", &broken).expect("that the set is not valid");
    met.insert("version=3.0".into(), 15.0);
    dial(&world, 20_120..20_125);
    prometheus.wait(&connections, "tags", &met).expect("connections of the last good set");
    agent.stop().expect("an orderly end");
}

#[test]
fn counts_go_on_with_the_next_agent() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let node = &world.bed.topology.node;
    let config = world.config(CONFIGURED);
    let start = || harness::Agent::start(&instance, &config, &[]).expect("an agent");
    let vip = format!("vip=\"{VIP4}\"");
    let of = |version: &str| format!("tags=\"version={version}\"");
    let counted = |version| value(&page(node), "balancer_connections_total", &[&vip, &of(version)]);
    let mut agent = start();
    // Counted by a set that is no longer live.
    dial(&world, 21_100..21_104);
    world.route("3.0");
    agent.wait("another set", || world.meets("3.0")).expect("another set");
    world.route("1.0");
    agent.wait("the first set", || world.meets("1.0")).expect("the first set");
    // Packets meet a set a moment before its counters have names.
    agent.wait("both sets on the page", || counted("3.0") >= 1.0).expect("the third's count");
    let seen = counted("1.0");
    dial(&world, 21_000..21_010);
    agent
        .wait("the last set's count", || counted("1.0") >= seen + 10.0)
        .expect("the first's count");
    let (first, third) = (counted("1.0"), counted("3.0"));
    agent.stop().expect("an orderly end");
    // While nobody looks.
    dial(&world, 21_020..21_025);
    let mut agent = start();
    agent.wait("a count that goes on", || counted("1.0") >= first + 5.0).expect("the first's");
    assert_eq!(counted("1.0"), first + 5.0);
    assert_eq!(counted("3.0"), third);
    agent.stop().expect("an orderly end");
}

#[test]
fn agent_goes_on_when_somebody_else_has_its_port() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let other = world.bed.topology.node.run(|| TcpListener::bind(AGENT)).expect("a listener");
    let mut agent =
        harness::Agent::start(&instance, &world.config(CONFIGURED), &[]).expect("an agent");
    agent.wait_logged(&["ERROR", "cannot listen", AGENT]).expect("an error in the log");
    assert_eq!(world.version().expect("a connection"), "1.0");
    drop(other);
    agent.stop().expect("an orderly end");
}

#[test]
fn promtool_takes_the_examples_of_the_docs() {
    let docs = include_str!("../../../docs/metrics.md");
    let home = tempfile::tempdir().expect("a directory");
    let mut kinds = Vec::new();
    for example in docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let kind = match example.split(':').next() {
            Some("scrape_configs") => "config",
            Some("groups") => "rules",
            _ => continue,
        };
        let file = home.path().join(kind).with_extension("yaml");
        fs::write(&file, example).expect("write the example");
        promtool(&["check", kind, &file.display().to_string()], "");
        kinds.push(kind);
    }
    assert_eq!(kinds, ["config", "rules"]);
}
