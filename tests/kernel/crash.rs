//! `kill -9` at any instant of a publish leaves the old set or the new one.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use balancer_user::{
    kernel::{self, Datapath, KernelError},
    resolve::Resolved,
};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{Service, compiled, described, expected, real, resolved, service},
};

/// The pin directory of a child that publishes; unset in every other process.
const DIR: &str = "BALANCER_TEST_PUBLISH_AT";
const ROUNDS: u32 = 120;

fn worlds() -> [Resolved; 2] {
    let client = "10.0.0.9".parse().expect("address");
    let one = [
        service(1, &[1, 2, 3]),
        service(2, &[4, 5]),
        Service { own: Some((client, vec![(1, vec![real(9)])])), ..service(3, &[6]) },
    ];
    let two = [
        service(1, &[2, 3]),
        Service { own: Some((client, vec![(1, vec![real(5)])])), ..service(4, &[7, 8]) },
        service(5, &[9]),
        service(6, &[1]),
    ];
    [resolved(&one, &[]), resolved(&two, &[])]
}

/// Not a test: what [`start`] runs in a process of its own. Publishes one set after the other
/// until it is killed; without the variable that [`start`] sets it does nothing.
#[test]
fn publishing_child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let lock = kernel::lock(&dir).expect("lock");
    let mut datapath = Datapath::open_or_create(&lock, &small()).expect("open");
    let worlds = worlds();
    for round in 0.. {
        // Begin with the other one than the last child left.
        let world = &worlds[(round + datapath.epoch() as usize) % 2];
        let tables = compiled(&mut datapath, world);
        let published = datapath.publish(&tables, plain()).expect("publish");
        println!("published {}", published.epoch);
    }
}

fn start(bed: &Bed) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::publishing_child", "--nocapture"])
        .env(DIR, bed.dir())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child")
}

/// Kills a child `after` its first publish; returns the last epoch that it spoke of.
fn run_and_kill(bed: &Bed, after: Duration) -> Option<u64> {
    let mut child = start(bed);
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let read = |lines: &mut std::io::Lines<_>| {
        lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("published ").and_then(|(_, n)| n.trim().parse().ok()))
    };
    let mut epoch = read(&mut lines);
    assert!(epoch.is_some(), "the child did not publish");
    std::thread::sleep(after);
    child.kill().expect("kill");
    child.wait().expect("wait");
    while let Some(more) = read(&mut lines) {
        epoch = Some(more);
    }
    epoch
}

#[test]
fn killed_publisher_leaves_the_old_or_the_new_set() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    drop(bed.create(&small()));
    let sets = worlds().each_ref().map(expected);
    let mut seen = [0u32; 2];
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        // Steps of 0.37 ms over 30 ms: a publish takes some 10 ms, most of it the grace period.
        let after = Duration::from_micros(u64::from(round) * 370 % 30_000);
        let said = run_and_kill(&bed, after);
        let view = Datapath::open_read_only(bed.dir()).expect("view");
        let now = described(&view).expect("described");
        let which = sets.iter().position(|set| *set == now);
        let which = which.unwrap_or_else(|| panic!("round {round}: a third set: {now:?}"));
        seen[which] += 1;
        cut_short += u32::from(said != Some(view.epoch()));
    }
    assert!(seen.iter().all(|n| *n > 0), "both sets were met: {seen:?}");
    assert!(cut_short > 0, "no publish was cut short between its flip and its end");
    // What is left is whole: the next writer publishes, and finds its own ids.
    let mut datapath = Datapath::open(&bed.lock()).expect("open");
    for world in worlds() {
        let tables = compiled(&mut datapath, &world);
        datapath.publish(&tables, plain()).expect("publish");
        assert_eq!(described(&datapath).expect("described"), expected(&world));
    }
}

#[test]
fn killed_first_load_leaves_nothing_or_what_the_next_one_makes_anew() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut incomplete = 0;
    for round in 0..16 {
        let mut child = start(&bed);
        // Pins are made last and within a millisecond: be there when they begin.
        while !bed.dir().join("maps").exists() {
            assert!(child.try_wait().expect("child").is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_micros(20));
        }
        std::thread::sleep(Duration::from_micros(round * 60));
        child.kill().expect("kill");
        child.wait().expect("wait");
        match Datapath::open_read_only(bed.dir()) {
            Ok(_) | Err(KernelError::NotLoaded { .. }) => {}
            Err(KernelError::Incomplete { .. }) => incomplete += 1,
            Err(e) => panic!("round {round}: {e}"),
        }
        let datapath = Datapath::open_or_create(&bed.lock(), &small()).expect("next load");
        drop(datapath);
        kernel::unload(bed.dir()).expect("unload");
    }
    assert!(incomplete > 0, "no first load was met half way");
}
