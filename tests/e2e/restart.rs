//! The proxy's listeners outlive its process: agents that follow one another, and requests all the
//! while.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use harness::{Agent, root_or_skip};
use nix::sys::signal::Signal;

use crate::requests::{Client, PLAIN, RULES, VIP4, VIP6, World};

/// Clients that keep their connection for as long as they are let.
const KEEPING: usize = 16;
/// Clients that have a connection for each request.
const SHORT: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// Has clients ask without end while `during` runs. Each answer must be by the rules, of a real that
/// the outer split never chooses; a connection ends only where its last answer has said so.
pub(crate) fn asked_all_the_while<T>(world: &World, during: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let ask = |client: &mut Client| {
        let answer = client.get("/api/x");
        assert_eq!(answer.name, "c", "{answer:?}");
        assert!(answer.seen.starts_with("GET /v2/x "), "{answer:?}");
        asked.fetch_add(1, Relaxed);
        thread::sleep(PAUSE);
        answer.head.contains("connection: close\r\n")
    };
    let keeping = |number: usize| {
        let to = [VIP4, VIP6][number % 2];
        let mut client = Client::new(&world.bed, "web-1", to);
        while !over.load(Relaxed) {
            if ask(&mut client) {
                client = Client::new(&world.bed, "web-1", to);
            }
        }
    };
    let short = |number: usize| {
        while !over.load(Relaxed) {
            ask(&mut Client::new(&world.bed, "guest", [VIP4, VIP6][number % 2]));
        }
    };
    let (keeping, short) = (&keeping, &short);
    thread::scope(|scope| {
        for number in 0..KEEPING {
            scope.spawn(move || keeping(number));
        }
        for number in 0..SHORT {
            scope.spawn(move || short(number));
        }
        // Clients end also where `during` panics.
        let _over = Over(&over);
        let begun = asked.load(Relaxed);
        thread::sleep(Duration::from_millis(500));
        let done = during();
        let before = asked.load(Relaxed);
        thread::sleep(Duration::from_millis(500));
        assert!(before > begun && asked.load(Relaxed) > before, "clients ask before and after");
        done
    })
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_restart_by_the_service_manager_fails_no_request() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let config = world.config("{shards: 2}");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let names = ["balancer-http4-0", "balancer-http4-1", "balancer-http6-0", "balancer-http6-1"];
    assert_eq!(agent.kept(), names);
    let mut agent = asked_all_the_while(&world, || {
        for _ in 0..2 {
            let kept = agent.stop_keeping().expect("an orderly end");
            assert_eq!(kept.names(), names);
            agent = Agent::restart(&instance, &config, &[], kept).expect("the next agent");
        }
        agent
    });
    assert_eq!(agent.kept(), names, "what is kept is not kept twice");
    agent.stop().expect("an orderly end");
    // With the agent the test lets go of what it kept: the kernel notices the end of the listeners.
    for to in [VIP4, VIP6] {
        let seen = Client::new(&world.bed, "web-1", to).get("/api/x").seen;
        assert!(seen.starts_with("GET /api/x "), "the outer split: {seen}");
    }
    instance.balancer(&["unload"]).expect("nothing in the way");
}

#[test]
fn connections_wait_while_no_agent_is_there() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let config = world.config("{shards: 2}");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let kept = agent.take_kept();
    // Also where its end was none that it knew of.
    agent.kill().expect("killed");
    let mut clients: Vec<_> =
        (0..8).map(|number| Client::new(&world.bed, "web-1", [VIP4, VIP6][number % 2])).collect();
    clients.iter_mut().for_each(|client| client.ask("/api/x"));
    let agent = Agent::restart(&instance, &config, &[], kept).expect("the next agent");
    for client in &mut clients {
        assert!(client.hear().seen.starts_with("GET /v2/x "));
    }
    agent.stop().expect("an orderly end");
}

#[test]
fn listeners_that_do_not_fit_are_closed_and_the_log_says_why() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let mut agent = world.agent(&instance);
    let mut next = |proxy: &str, why: &str, names: &[&str]| {
        let kept = agent.take_kept();
        agent.signal(Signal::SIGTERM).expect("a signal");
        assert!(agent.end().expect("an end").success());
        agent = Agent::restart(&instance, &world.config(proxy), &[], kept).expect("an agent");
        agent.wait_logged(&["is closed", why]).expect("the reason");
        assert_eq!(agent.kept(), names);
        for to in [VIP4, VIP6] {
            let seen = Client::new(&world.bed, "web-1", to).get("/api/x").seen;
            assert!(seen.starts_with("GET /v2/x "), "{seen}");
        }
    };
    let of_one = ["balancer-http4-0", "balancer-http6-0"];
    next("{shards: 1}", "balancer-http6-1", &of_one);
    next(
        "{shards: 1, mark: 0x30000000}",
        "its mark is 0x8000000, which was to be 0x20000000",
        &of_one,
    );
    // Nobody has use for them: connections go by the split.
    world.write(PLAIN);
    let kept = agent.stop_keeping().expect("an orderly end");
    let mut agent = Agent::restart(&instance, &world.config("{}"), &[], kept).expect("an agent");
    assert!(agent.kept().is_empty());
    let seen = Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen;
    assert!(seen.starts_with("GET /api/x "), "{seen}");
    agent.stop().expect("an orderly end");
}
