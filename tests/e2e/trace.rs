//! `balancer trace` beside real connections.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Instance, patience, root_or_skip};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::bed::{Bed, MAGLEV, OTHER_VIP4, VIP4, VIP6, split, version_of};

/// A trace that runs; killed when a test panics.
struct Trace {
    child: Child,
    /// Until the test closes it.
    stdout: Option<BufReader<ChildStdout>>,
}

/// What a trace said from its first event on.
struct Ended {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

impl Ended {
    fn events(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["event"] == kind).collect()
    }
}

impl Trace {
    /// Starts `trace ARGS -o json`, and waits until the programs tell.
    fn start(instance: &Instance<'_>, args: &[&str]) -> Self {
        let args: Vec<&str> = ["trace", "-o", "json"].iter().chain(args).copied().collect();
        let mut child = instance
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("balancer can be started");
        let stdout = child.stdout.take().map(BufReader::new);
        let mut trace = Self { child, stdout };
        let mut line = Vec::new();
        let stderr = trace.child.stderr.as_mut().expect("piped");
        // Byte by byte: what comes after it is for the end.
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            stderr.read_exact(&mut byte).expect("it says that it traces");
            line.push(byte[0]);
        }
        assert_eq!(String::from_utf8_lossy(&line), "tracing; ctrl-C ends\n");
        trace
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The next line.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().expect("open").read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("no JSON: {line:?}: {e}"))
    }

    fn interrupted(self) -> Ended {
        kill(self.pid(), Signal::SIGINT).expect("it runs");
        self.ended()
    }

    /// Waits for its end.
    fn ended(mut self) -> Ended {
        let mut text = String::new();
        if let Some(stdout) = &mut self.stdout {
            stdout.read_to_string(&mut text).expect("UTF-8");
        }
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().expect("piped");
        pipe.read_to_string(&mut stderr).expect("UTF-8");
        Ended { code: self.child.wait().expect("it ended").code(), lines, stderr }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Both fail where it has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// redis over two versions; other goes to a version that nobody runs.
fn routes() -> String {
    let redis = split("redis-canary", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV);
    let other = split("other-hollow", "*", "other", &[("9.9", 1)], MAGLEV);
    format!("{redis}---\n{other}")
}

#[test]
fn connections_and_refusals_are_traced_with_names() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &routes());
    let trace = Trace::start(&instance, &["--count", "13"]);
    let v4 = bed.dial("web-1", VIP4, 12_000..12_006);
    let v6 = bed.dial("guest", VIP6, 12_000..12_006);
    bed.open("web-2", OTHER_VIP4).expect_err("it has no backend");
    let ended = trace.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let new = ended.events("new");
    assert_eq!(new.len(), 12, "{:#?}", ended.lines);
    for ((from, greeting), line) in v4.iter().chain(&v6).zip(new) {
        let family = if from.is_ipv4() { 4 } else { 6 };
        assert_eq!(line["client"], from.to_string());
        // `guest` is in no policy.
        let known = if family == 4 { vec!["default/web-1-v4"] } else { vec![] };
        assert_eq!(line["from"], serde_json::json!(known));
        assert_eq!(line["vip"], if family == 4 { VIP4 } else { VIP6 });
        assert_eq!((&line["service"], &line["policy"]), (&"redis".into(), &"redis-canary".into()));
        let version = version_of(&greeting.name);
        assert_eq!(line["backend"], format!("redis{{version={version}}}"));
        let real: SocketAddr = line["real"].as_str().expect("a real").parse().expect("an end");
        assert_eq!(crate::bed::name_of(real.ip()), greeting.name);
        assert_eq!((&line["reason"], &line["fate"]), (&"new_flow".into(), &"forward".into()));
        assert_eq!(line["interface"], if family == 4 { "v-web-1" } else { "v-guest" });
    }
    let [refused] = ended.events("refused")[..] else { panic!("{:#?}", ended.lines) };
    assert_eq!((&refused["reason"], &refused["fate"]), (&"blackhole".into(), &"reset".into()));
    assert_eq!(refused["from"], serde_json::json!(["default/web-2-v4"]));
    assert_eq!(refused["policy"], "other-hollow");
    assert_eq!(refused["backend"], "other{version=9.9}", "the only one without reals");
    assert_eq!(refused["real"], Value::Null);
    let end = ended.lines.last().expect("a last line");
    assert_eq!(
        (&end["event"], &end["new"], &end["refused"]),
        (&"end".into(), &12.into(), &1.into())
    );
    assert!(ended.stderr.contains("13 events: 12 new flows, 1 refused packet"), "{}", ended.stderr);
}

#[test]
fn set_that_is_published_meanwhile_is_followed_by_name() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let mut trace = None;
    for (name, version) in [("first", "1.0"), ("second", "2.0"), ("third", "3.0")] {
        bed.load(&instance, &split(name, "*", "redis", &[(version, 1)], MAGLEV));
        let trace = trace.get_or_insert_with(|| Trace::start(&instance, &[]));
        bed.dial("web-1", VIP4, [13_000]);
        let line = trace.line();
        assert_eq!(line["policy"], name, "{line}");
        assert_eq!(line["backend"], format!("redis{{version={version}}}"), "{line}");
    }
    let ended = trace.expect("started").interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines.len(), 1, "nothing but the end: {:?}", ended.lines);
}

#[test]
fn filters_let_through_what_they_name_and_count_the_others() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &routes());
    let from = Trace::start(&instance, &["--from", "web-2-v4", "--service", "redis"]);
    bed.dial("web-1", VIP4, 14_000..14_003);
    bed.dial("web-2", VIP4, 14_000..14_002);
    bed.open("web-2", OTHER_VIP4).expect_err("it has no backend");
    let ended = from.interrupted();
    let clients: Vec<_> = ended.events("new").iter().map(|line| &line["from"]).collect();
    let web_2 = serde_json::json!(["default/web-2-v4"]);
    assert_eq!(clients, [&web_2, &web_2], "{:#?}", ended.lines);
    assert_eq!(ended.events("refused").len(), 0);
    assert_eq!(ended.lines.last().expect("the end")["others"], 4);

    let drops = Trace::start(&instance, &["--drops"]);
    bed.dial("web-1", VIP4, 14_010..14_013);
    bed.open("web-1", OTHER_VIP4).expect_err("it has no backend");
    let ended = drops.interrupted();
    assert_eq!((ended.events("new").len(), ended.events("refused").len()), (0, 1));
    assert_eq!(ended.lines.last().expect("the end")["others"], 0, "new flows were not asked for");

    let sampled = Trace::start(&instance, &["--new", "--sample", "4000000000"]);
    bed.dial("web-1", VIP4, 14_020..14_040);
    let ended = sampled.interrupted();
    let end = ended.lines.last().expect("the end");
    assert_eq!(end["left_out"], 20, "{:#?}", ended.lines);

    let limited = Trace::start(&instance, &["--new", "--rate", "1"]);
    bed.dial("web-1", VIP4, 14_050..14_070);
    let ended = limited.interrupted();
    let end = ended.lines.last().expect("the end");
    let new = ended.events("new").len() as u64;
    assert!(new >= 1 && end["limited"].as_u64() == Some(20 - new), "{:#?}", ended.lines);
    let lost = ended.events("lost");
    let told: u64 = lost.iter().filter_map(|line| line["limited"].as_u64()).sum();
    assert_eq!(told, 20 - new, "every loss is told once: {lost:?}");
}

#[test]
fn one_traces_at_a_time_and_a_killed_one_leaves_nothing_switched_on() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &routes());
    let asked = || instance.json(&["maps", "dump", "TRACE", "--all"]).expect("TRACE")[0].clone();
    let first = Trace::start(&instance, &[]);
    let output = instance.output(&["trace"]).expect("it can be started");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("read by process {} already", first.pid())), "{said}");
    assert!(asked()["until_ns"].as_u64() > Some(0));

    kill(first.pid(), Signal::SIGKILL).expect("it runs");
    assert_eq!(first.ended().code, None);
    assert!(asked()["until_ns"].as_u64() > Some(0), "nobody could switch it off");
    let begun = Instant::now();
    for port in 15_100.. {
        bed.dial("web-1", VIP4, [port]);
        if asked()["until_ns"] == 0 {
            break;
        }
        assert!(begun.elapsed() < patience(Duration::from_secs(10)), "it stays: {}", asked());
        thread::sleep(Duration::from_millis(100));
    }

    // The next one neither waits nor sees what the first left unread.
    let next = Trace::start(&instance, &[]);
    bed.dial("web-2", VIP4, [15_001]);
    let ended = next.interrupted();
    let new = ended.events("new");
    assert_eq!(new.len(), 1, "{:#?}", ended.lines);
    assert_eq!(new[0]["from"], serde_json::json!(["default/web-2-v4"]));
    assert_eq!(asked()["until_ns"], 0, "switched off at the end");
}

#[test]
fn trace_ends_with_what_it_traces_and_says_so() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &routes());
    let trace = Trace::start(&instance, &[]);
    bed.dial("web-1", VIP4, [16_000]);
    instance.balancer(&["unload"]).expect("unload");
    let ended = trace.ended();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("has been unloaded or replaced"), "{}", ended.stderr);
    assert_eq!(ended.events("new").len(), 1, "what it saw is printed");
    assert_eq!(ended.events("end").len(), 1);
}

#[test]
fn trace_ends_when_nobody_reads_it_or_time_is_over() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &routes());
    let ended = Trace::start(&instance, &["--for", "100ms"]).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("0 events"), "{}", ended.stderr);

    let mut unread = Trace::start(&instance, &[]);
    unread.stdout = None;
    let ended = unread.ended();
    assert_eq!(ended.code, Some(0), "as `| head` is no failure: {}", ended.stderr);
}
