//! `balancer show … --watch`: again whenever something changed, across a reload.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use harness::root_or_skip;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    run::balancer,
    world::{ATTACH, World, route, topology},
};

/// A watcher and the documents that it printed. Killed when it is dropped.
struct Watch {
    child: Child,
    documents: mpsc::Receiver<Value>,
}

impl Watch {
    fn start(world: &World<'_>, args: &[&str]) -> Self {
        let mut command = world.instance.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("balancer can be started");
        let stdout = BufReader::<ChildStdout>::new(child.stdout.take().expect("its stdout"));
        let (sender, documents) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let document = serde_json::from_str(&line).expect("one document a line");
                if sender.send(document).is_err() {
                    return;
                }
            }
        });
        Self { child, documents }
    }

    /// The next document that has rows: maps that were just made hold none.
    fn next(&self) -> Value {
        let patience = harness::patience(Duration::from_secs(60));
        loop {
            let document = self.documents.recv_timeout(patience).expect("a document");
            if document.as_array().is_some_and(|rows| !rows.is_empty()) {
                return document;
            }
        }
    }

    /// Ctrl-C: how it ended, and what it said.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let code = self.child.wait().expect("it ends").code();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("its stderr");
        stderr.read_to_string(&mut said).expect("UTF-8");
        (code, said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watch_prints_what_changed_with_new_names_and_survives_a_reload() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    let weights = |rows: &Value| -> Vec<u64> {
        let rows = rows.as_array().expect("a list").iter();
        rows.filter(|row| row["class"] == 1).filter_map(|row| row["weight"].as_u64()).collect()
    };

    let watch = Watch::start(&world, &["show", "backends", "-o", "json", "--watch", "100ms"]);
    // Begun before anything is loaded.
    world.load(&ATTACH).exits(0);
    assert_eq!(weights(&watch.next()), [90, 10]);
    world.write("route.yaml", &route(50, 50));
    world.load(&[]).exits(0);
    assert_eq!(weights(&watch.next()), [50, 50]);

    world.run(&["unload"]).exits(0);
    // It must notice before the next load, or there was nothing to survive.
    thread::sleep(Duration::from_millis(500));
    world.write("route.yaml", &route(20, 80));
    world.load(&ATTACH).exits(0);
    assert_eq!(weights(&watch.next()), [20, 80]);
    let (code, said) = watch.interrupt();
    assert_eq!(code, Some(0), "{said}");
    for words in ["nothing is loaded at", "waiting for it", "it is loaded again"] {
        assert!(said.contains(words), "stderr does not say `{words}`:\n{said}");
    }
}

#[test]
fn watch_that_nothing_changes_for_prints_once() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.load(&ATTACH).exits(0);
    let watch = Watch::start(&world, &["show", "vips", "-o", "json", "--watch", "100ms"]);
    let vips = watch.next();
    assert_eq!(vips.as_array().map(Vec::len), Some(2), "{vips}");
    let more = watch.documents.recv_timeout(Duration::from_secs(1));
    assert!(more.is_err(), "it printed again: {more:?}");
    assert_eq!(watch.interrupt().0, Some(0));
}

#[test]
fn intervals_that_make_no_sense_are_refused() {
    balancer(&["show", "vips", "--watch", "soon"]).exits(2).says(&["`soon` is no duration"]);
    balancer(&["show", "vips", "--watch", "2"]).exits(2).says(&["no unit", "2s"]);
    balancer(&["show", "vips", "--watch", "1ms"]).exits(2).says(&["too short", "100ms"]);
    balancer(&["show", "vips", "-o", "hosts", "--watch"]).exits(2);
}
