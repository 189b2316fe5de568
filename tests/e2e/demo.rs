//! The demo itself: that it ends well, and that Ctrl-C leaves nothing.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{instance::balancer_binary, root_or_skip};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What the demo may take, build excluded.
const MINUTE: Duration = Duration::from_secs(60);

fn start() -> Child {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("BALANCER_BIN", balancer_binary())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the demo")
}

/// Namespaces and mounts that carry the process id of `demo`.
fn left_behind(demo: u32) -> Vec<String> {
    let mark = format!("balancer-{demo}-");
    let mut left = Vec::new();
    for folder in ["/run", "/run/netns"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        left.extend(names.filter(|name| name.contains(&mark)));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    left.extend(mounts.lines().filter(|line| line.contains(&mark)).map(str::to_owned));
    left
}

#[test]
fn the_demo_ends_well_within_a_minute_and_removes_everything() {
    if root_or_skip("e2e").is_none() {
        return;
    }
    let begun = Instant::now();
    let demo = start();
    let id = demo.id();
    let output = demo.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{told}", output.status);
    for line in ["  broken  0", "  moved   0"] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
    }
    assert!(begun.elapsed() < MINUTE, "the demo took {:?}", begun.elapsed());
    assert_eq!(left_behind(id), Vec::<String>::new());
}

#[test]
fn ctrl_c_removes_everything_too() {
    if root_or_skip("e2e").is_none() {
        return;
    }
    // While namespaces are made, while connections are counted, while they live on.
    for moment in ["ip netns add", "connections to each service", "keep talking"] {
        let mut demo = start();
        let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
        let reached = lines.by_ref().map_while(Result::ok).any(|line| line.contains(moment));
        if reached {
            let id = Pid::from_raw(demo.id().try_into().expect("a process id"));
            kill(id, Signal::SIGINT).expect("interrupt the demo");
        }
        // Its pipes must not fill up.
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        let mut told = String::new();
        demo.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
        let status = demo.wait().expect("an end");
        assert!(reached, "the demo never came to {moment:?}: {told}");
        assert!(told.contains("interrupted"), "{moment}: {status} {told}\n{}", rest.join("\n"));
        assert!(!status.success(), "an interrupted demo is no success");
        assert_eq!(left_behind(demo.id()), Vec::<String>::new(), "after {moment:?}");
    }
}
