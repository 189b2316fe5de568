//! Changing what is loaded while connections live, being killed meanwhile, and going away.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{Connection, root_or_skip, scaled};

use crate::bed::{Bed, MAGLEV, OTHER_VIP4, VIP4, VIP6, count, split, version_of};

fn redis(weights: &[(&str, u32)]) -> String {
    split("redis-canary", "*", "redis", weights, MAGLEV)
}

/// Both services entirely on one version.
fn both_on(version: &str) -> String {
    let weights = [(version, 1)];
    format!("{}---\n{}", redis(&weights), split("other", "*", "other", &weights, MAGLEV))
}

#[test]
fn publishes_break_and_move_none_of_the_live_connections() {
    let Some(root) = root_or_skip("e2e") else { return };
    let (live, publishes) = scaled((500, 100), (50, 10));
    let bed = Bed::new(root);
    let instance = bed.instance();
    let sets = [
        redis(&[("1.0", 90), ("2.0", 10)]),
        redis(&[("1.0", 50), ("2.0", 50)]),
        redis(&[("1.0", 0), ("2.0", 30), ("3.0", 70)]),
    ];
    bed.load(&instance, &sets[0]);
    let mut connections: Vec<Connection> = (0..live)
        .map(|i| bed.open("web-1", if i % 2 == 0 { VIP4 } else { VIP6 }).expect("a connection"))
        .collect();
    let done = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let talker = scope.spawn(|| {
            let mut rounds = 0;
            // One round more after the last publish.
            let mut last = false;
            while !last {
                last = done.load(Ordering::Relaxed);
                for connection in &mut connections {
                    let name = connection.talk("still there").expect("no connection breaks");
                    assert_eq!(name, connection.greeting.name, "no connection moves");
                    // An emulated machine has no CPU to spare for more.
                    thread::sleep(scaled(Duration::ZERO, Duration::from_millis(2)));
                }
                rounds += 1;
            }
            rounds
        });
        for publish in 1..=publishes {
            bed.load(&instance, &sets[publish % sets.len()]);
        }
        done.store(true, Ordering::Relaxed);
        talker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(rounds > 1, "the connections talked during the publishes, not only after");
    // The last set was published, and new connections follow it.
    let greetings = bed.dial("web-1", VIP4, 30_000..30_300);
    let counts = count(greetings.iter().map(|(_, greeting)| greeting));
    let last = publishes % sets.len();
    assert_eq!(last, 1, "the set with the second weights is the last one");
    let first_version = counts.iter().filter(|(name, _)| version_of(name) == "1.0");
    let first_version: u64 = first_version.map(|(_, n)| n).sum();
    assert!((90..=210).contains(&first_version), "50 % of 300 connections: {counts:?}");
}

#[test]
fn a_killed_load_leaves_the_old_or_the_new_set() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let versions = ["1.0", "2.0"];
    bed.load(&instance, &both_on(versions[0]));
    let begun = Instant::now();
    bed.load(&instance, &both_on(versions[1]));
    let step = begun.elapsed() / 10;

    let mut port = 10_000;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut current = 1;
    // A later kill after one that came too early, an earlier one after one that came too late:
    // so most of them fall near the flip. The jitter tries the moments around it.
    let mut delay = step * 5;
    for round in 0..scaled(40, 12) {
        let next = 1 - current;
        let path = bed.policies(&both_on(versions[next]));
        let args = bed.load_args(&path);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut child = instance
            .command(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start load");
        thread::sleep(delay + step * (round * 7 % 11) / 11);
        child.kill().expect("kill -9");
        child.wait().expect("an end");

        let mut now = Vec::new();
        for _ in 0..4 {
            for to in [VIP4, OTHER_VIP4] {
                now.extend(bed.dial("web-1", to, [port]));
            }
            port += 1;
        }
        let met: Vec<_> = now.iter().map(|(_, g)| version_of(&g.name)).collect();
        assert!(
            met.iter().all(|version| *version == met[0]),
            "round {round}: a third set, connections met {met:?}"
        );
        let is_new = met[0] == versions[next];
        *seen.entry(if is_new { "new" } else { "old" }).or_default() += 1;
        delay = if is_new { delay.saturating_sub(step) } else { delay + step };

        // The next writer repairs whatever was left, and its set holds.
        current = (round as usize) % 2;
        bed.load(&instance, &both_on(versions[current]));
        let greetings = bed.dial("web-1", VIP4, [port]);
        port += 1;
        assert_eq!(version_of(&greetings[0].1.name), versions[current], "round {round}");
    }
    assert_eq!(seen.len(), 2, "kills must fall on both sides of the flip: {seen:?}");
}

#[test]
fn a_drained_version_keeps_its_connections_and_gets_no_new_ones() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &redis(&[("1.0", 100), ("2.0", 0)]));
    let new = scaled(200, 50);
    let mut blue: Vec<_> = (0..50).map(|_| bed.open("web-1", VIP4).expect("blue")).collect();
    assert!(blue.iter().all(|c| version_of(&c.greeting.name) == "1.0"));

    bed.load(&instance, &redis(&[("1.0", 0), ("2.0", 100)]));
    for (_, greeting) in bed.dial("web-1", VIP4, 20_000..20_000 + new) {
        assert_eq!(version_of(&greeting.name), "2.0", "weight 0 takes nothing");
    }
    for connection in &mut blue {
        let name = connection.talk("still blue").expect("an established connection stays");
        assert_eq!(name, connection.greeting.name);
    }
    // And back again.
    bed.load(&instance, &redis(&[("1.0", 100), ("2.0", 0)]));
    for (_, greeting) in bed.dial("web-1", VIP4, 21_000..21_000 + new) {
        assert_eq!(version_of(&greeting.name), "1.0");
    }
    for connection in blue {
        connection.close().expect("an orderly end");
    }
}

#[test]
fn a_policy_that_goes_away_leaves_its_connections_alone() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &redis(&[("2.0", 1)]));
    let mut connection = bed.open("web-1", VIP4).expect("a connection");
    // Without a TrafficRoute the service itself answers (decision D6).
    bed.load(&instance, &split("elsewhere", "nobody", "other", &[("1.0", 1)], MAGLEV));
    assert_eq!(connection.talk("still there").expect("an answer"), "c");
    let greetings = bed.dial("web-1", VIP4, 20_000..20_400);
    let counts = count(greetings.iter().map(|(_, greeting)| greeting));
    assert_eq!(counts.len(), 4, "every endpoint of the service: {counts:?}");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(connection.talk("and later").expect("an answer"), "c");
}
