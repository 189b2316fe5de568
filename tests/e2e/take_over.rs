//! `balancer agent --take-over`: an agent takes the place of one that runs, and requests all the while.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    thread,
};

use harness::{Agent, Instance, root_or_skip};

use crate::{
    requests::{Client, RULES, VIP4, World},
    restart::asked_all_the_while,
};

const TAKE_OVER: &[&str] = &["--take-over"];

/// Starts an agent that does not come to serve, and returns what it says.
fn refused(world: &World, instance: &Instance<'_>, args: &[&str]) -> String {
    let config = world.config("{shards: 2}");
    let mut agent = Agent::start_unready(instance, &config, args, &[]).expect("a process");
    let status = agent.end().expect("an end");
    assert_eq!(status.code(), Some(3), "{}", agent.log());
    agent.log()
}

#[test]
fn a_take_over_fails_no_request_and_the_agent_before_ends() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let config = world.config("{shards: 2}");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let socket = instance.state().join("take-over.sock");
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let agent = asked_all_the_while(&world, || {
        for _ in 0..2 {
            let next = Agent::start(&instance, &config, TAKE_OVER).expect("the next agent");
            assert!(agent.end().expect("an end").success(), "{}", agent.log());
            assert!(next.log().contains("taken over"), "{}", next.log());
            agent = next;
        }
        agent
    });
    agent.stop().expect("an orderly end");
    assert!(!socket.exists());
    instance.balancer(&["unload"]).expect("nothing in the way");
}

#[test]
fn a_take_over_with_other_shards_fails_no_request() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let mut agent = world.agent(&instance);
    let agent = asked_all_the_while(&world, || {
        for shards in ["{shards: 4}", "{shards: 1}"] {
            let config = world.config(shards);
            let next = Agent::start(&instance, &config, TAKE_OVER).expect("the next agent");
            assert!(agent.end().expect("an end").success(), "{}", agent.log());
            agent = next;
        }
        agent
    });
    agent.stop().expect("an orderly end");
}

#[test]
fn where_no_agent_runs_a_take_over_begins_as_usual() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let config = world.config("{shards: 2}");
    Agent::start(&instance, &config, TAKE_OVER).expect("an agent").kill().expect("killed");
    // The socket of the one that was killed is still there.
    let agent = Agent::start(&instance, &config, TAKE_OVER).expect("an agent");
    assert!(agent.log().contains("no agent is there to take over from"), "{}", agent.log());
    assert!(Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen.starts_with("GET /v2/x "));
    agent.stop().expect("an orderly end");
}

#[test]
fn who_cannot_take_over_leaves_the_agent_in_its_place() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let (instance, other) = (world.bed.instance(), world.bed.instance());
    world.write(RULES);
    let agent = world.agent(&instance);
    // Of another pin directory, by the same state directory.
    let link = other.state();
    std::os::unix::fs::symlink(instance.state(), &link).expect("a link");
    let said = refused(&world, &other, TAKE_OVER);
    assert!(said.contains(&format!("process {}", agent.pid())), "{said}");
    assert!(said.contains("it writes at") && said.contains("hint: stop that agent"), "{said}");
    // With policies that are none.
    let good = std::fs::read_to_string(world.policies()).expect("policies");
    std::fs::write(world.policies(), "type: Mesh\n").expect("policies");
    let config = world.config("{shards: 2}");
    let mut next = Agent::start_unready(&instance, &config, TAKE_OVER, &[]).expect("a process");
    assert_eq!(next.end().expect("an end").code(), Some(1), "{}", next.log());
    std::fs::write(world.policies(), good).expect("policies");
    assert!(Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen.starts_with("GET /v2/x "));
    agent.stop().expect("an orderly end");
}

#[test]
fn an_agent_that_speaks_other_words_is_named_with_what_to_do() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    std::fs::create_dir_all(instance.state()).expect("a directory");
    let socket = instance.state().join("take-over.sock");
    let listener = UnixListener::bind(&socket).expect("a listener");
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a successor");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        writeln!(&stream, "bonjour").expect("an answer");
        line
    });
    let said = refused(&world, &instance, TAKE_OVER);
    assert!(said.contains("it speaks other words, as another version may: bonjour"), "{said}");
    let asked = answering.join().expect("an answer");
    assert!(asked.contains("\"words\":1"), "{asked}");
}

#[test]
fn an_agent_whose_successor_goes_ends_with_an_error() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let mut agent = world.agent(&instance);
    let socket = instance.state().join("take-over.sock");
    let stream = std::os::unix::net::UnixStream::connect(&socket).expect("the agent");
    let bpffs = instance.bpffs();
    writeln!(&stream, "{{\"take_over\":{{\"words\":1,\"bpffs\":\"{}\"}}}}", bpffs.display())
        .expect("asked");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("an answer");
    assert!(line.contains("balancer-http4-0"), "{line}");
    // Until it knows that nobody serves, it does.
    assert!(Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen.starts_with("GET /v2/x "));
    drop(stream);
    assert!(agent.end().expect("an end").success());
    assert!(agent.log().contains("the agent that was to take over does not"), "{}", agent.log());
    // As a service manager does whose service has ended.
    drop(agent.take_kept());
    let seen = Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen;
    assert!(seen.starts_with("GET /api/x "), "nobody listens: {seen}");
}
