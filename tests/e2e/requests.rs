//! The agent with its proxy: requests of real clients, by real sockets, to real servers.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use harness::{
    Agent, Instance, NetNs,
    backends::{self, anywhere},
    root_or_skip,
};

use crate::bed::{Bed, LIMITS, vip};

pub(crate) const VIP4: &str = "10.99.0.3:80";
pub(crate) const VIP6: &str = "[fd99::3]:80";
/// Where the servers listen.
const PORT: u16 = 8080;

/// Answers each request with its name, whom it sees, and the head, for as long as the process lives
/// or the namespace does.
fn serve(ns: &NetNs, address: IpAddr, name: &'static str) {
    let listener =
        ns.run(|| TcpListener::bind(SocketAddr::new(address, PORT))).expect("a listener");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(&stream, name));
        }
    });
}

fn answer(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    let mut from = BufReader::new(stream);
    loop {
        let head = read_head(&mut from)?;
        if head.is_empty() {
            return Ok(());
        }
        if head.starts_with("GET /slow") || head.contains("/slow ") {
            thread::sleep(Duration::from_millis(700));
        }
        let text = format!("{name}\n{peer}\n{head}");
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
    }
}

/// Up to the empty line; empty: there is none any more.
fn read_head(from: &mut impl io::BufRead) -> io::Result<String> {
    let mut head = String::new();
    while from.read_line(&mut head)? > 2 {}
    Ok(head)
}

/// An answer of one of these servers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) name: String,
    peer: IpAddr,
    pub(crate) seen: String,
}

impl Answer {
    fn seen_header(&self, name: &str) -> Option<&str> {
        let line = self.seen.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value)
    }
}

/// A client's connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn new(bed: &Bed, host: &str, to: &str) -> Self {
        let to = vip(to);
        let stream = bed.topology.host(host).ns.run(|| backends::dial(anywhere(to), to));
        Self(BufReader::new(stream.expect("a connection")))
    }

    pub(crate) fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("a request");
    }

    pub(crate) fn hear(&mut self) -> Answer {
        let head = read_head(&mut self.0).expect("an answer");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.unwrap_or_else(|| panic!("a length in {head:?}"));
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("text");
        let mut parts = body.splitn(3, '\n').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_else(|| panic!("three parts in {head} {body:?}"));
        let (name, peer, seen) = (next(), next(), next());
        Answer { head, name, peer: peer.parse().expect("an address"), seen }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(path);
        self.hear()
    }
}

pub(crate) struct World {
    pub(crate) bed: Bed,
    home: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(root: harness::Root) -> Self {
        let bed = Bed::new(root);
        for name in ["a", "c"] {
            let host = bed.topology.host(name);
            host.addresses.iter().for_each(|address| serve(&host.ns, *address, name));
        }
        Self { bed, home: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn policies(&self) -> PathBuf {
        self.home.path().join("policies.yaml")
    }

    /// The service `web`, one version on each server, with a route of this conf.
    pub(crate) fn write(&self, conf: &str) {
        let mut text = "type: Mesh\nname: default\n".to_owned();
        let mut plane = |name: &str, address: IpAddr, rest: &str| {
            let family = if address.is_ipv4() { 4 } else { 6 };
            text += &format!(
                "---\ntype: Dataplane\nmesh: default\nname: {name}-v{family}\nnetworking:\n  \
                 address: '{address}'\n{rest}"
            );
        };
        for (name, version) in [("a", "v1"), ("c", "v2")] {
            for address in &self.bed.topology.host(name).addresses {
                let inbound = format!(
                    "  inbound: [{{port: {PORT}, tags: {{kuma.io/service: web, kuma.io/protocol: \
                     http, version: {version}}}}}]\n"
                );
                plane(name, *address, &inbound);
            }
        }
        for address in &self.bed.topology.host("web-1").addresses {
            let to = vip(if address.is_ipv4() { VIP4 } else { VIP6 });
            let dials = format!(
                "  inbound: [{{port: 1, tags: {{kuma.io/service: client}}}}]\n  outbound: \
                 [{{address: '{}', port: 80, tags: {{kuma.io/service: web}}}}]\n",
                to.ip()
            );
            plane("client", *address, &dials);
        }
        text += &format!(
            "---\ntype: TrafficRoute\nmesh: default\nname: web\nsources: [{{match: \
             {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: web}}}}]\n\
             conf:\n{conf}"
        );
        let beside = self.home.path().join("beside");
        std::fs::write(&beside, text).expect("policies");
        std::fs::rename(beside, self.policies()).expect("renamed");
    }

    /// A configuration with this `proxy`.
    pub(crate) fn config(&self, proxy: &str) -> PathBuf {
        let config = self.home.path().join("config.yaml");
        let text = format!(
            "policies: ['{}']\nattach: [{{interface: 'v-*', hook: tc}}]\n{LIMITS}proxy: {proxy}\n",
            self.policies().display()
        );
        std::fs::write(&config, text).expect("a configuration");
        config
    }

    pub(crate) fn agent(&self, instance: &Instance<'_>) -> Agent {
        Agent::start(instance, &self.config("{shards: 2}"), &[]).expect("an agent")
    }
}

/// Below /api to v2, as /v2; the rest to v1.
pub(crate) const RULES: &str = "  http:
  - match: {path: {prefix: /api}}
    modify:
      path: {rewritePrefix: /v2}
      requestHeaders: {add: [{name: x-route, value: api}]}
    destination: {kuma.io/service: web, version: v2}
  destination: {kuma.io/service: web, version: v1}
";

/// All to v2, by connection.
pub(crate) const PLAIN: &str = "  destination: {kuma.io/service: web, version: v2}\n";

fn epoch(instance: &Instance<'_>) -> u64 {
    let status = instance.json(&["status"]).expect("a status");
    status["agent"]["publish"]["epoch"].as_u64().expect("an epoch")
}

#[test]
fn requests_go_by_their_rules_over_both_families_and_from_everywhere() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let agent = world.agent(&instance);
    for to in [VIP4, VIP6] {
        for host in ["web-1", "guest"] {
            let mut client = Client::new(&world.bed, host, to);
            let address = world.bed.topology.host(host).address_like(vip(to).ip());
            for _ in 0..3 {
                let answer = client.get("/x?y=1");
                assert_eq!((answer.name.as_str(), answer.seen_header("x-route")), ("a", None));
                let answer = client.get("/api/x?y=1");
                assert_eq!(answer.name, "c");
                assert!(answer.seen.starts_with("GET /v2/x?y=1 HTTP/1.1\r\n"), "{answer:?}");
                assert_eq!(answer.seen_header("x-route"), Some("api"));
                assert_eq!(answer.seen_header("host"), Some("web.test"));
                assert_eq!(answer.seen_header("x-forwarded-for"), Some(&*address.to_string()));
                assert_ne!(answer.peer, address, "the proxy asks in the client's place");
            }
        }
    }
    agent.stop().expect("an orderly end");
}

#[test]
fn connections_of_both_kinds_live_on_while_a_vip_gets_rules_and_loses_them() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(PLAIN);
    let mut agent = world.agent(&instance);
    let address = world.bed.topology.host("web-1").address_like(vip(VIP4).ip());
    let mut plain = Client::new(&world.bed, "web-1", VIP4);
    assert_eq!(plain.get("/api").peer, address, "nobody stands between");
    let change = |agent: &mut Agent, conf: &str| {
        let before = epoch(&instance);
        world.write(conf);
        agent.wait("the change is live", || epoch(&instance) > before).expect("a publish");
    };
    change(&mut agent, RULES);
    let mut ruled = Client::new(&world.bed, "web-1", VIP4);
    assert!(ruled.get("/api").seen.starts_with("GET /v2 "));
    assert_eq!(plain.get("/api").peer, address, "a connection stays what it began as");
    // A request that is under way while the rules go.
    ruled.ask("/api/slow");
    thread::sleep(Duration::from_millis(200));
    change(&mut agent, PLAIN);
    let answer = ruled.hear();
    assert_eq!(answer.name, "c");
    assert!(answer.seen.starts_with("GET /v2/slow "), "{answer:?}");
    if !answer.head.contains("connection: close") {
        // The next one is the last by the old rules.
        let last = ruled.get("/api");
        assert!(last.seen.starts_with("GET /v2 ") && last.head.contains("connection: close"));
    }
    let mut after = Client::new(&world.bed, "web-1", VIP4);
    assert_eq!(after.get("/api").peer, address);
    assert_eq!(plain.get("/api").peer, address);
    agent.stop().expect("an orderly end");
}

#[test]
fn an_agent_that_ends_finishes_what_is_under_way_and_leaves_the_split() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    world.write(RULES);
    let agent = world.agent(&instance);
    let mut client = Client::new(&world.bed, "web-1", VIP4);
    client.ask("/api/slow");
    thread::sleep(Duration::from_millis(200));
    agent.stop().expect("an orderly end");
    let answer = client.hear();
    assert!(answer.seen.starts_with("GET /v2/slow "), "{answer:?}");
    assert!(answer.head.contains("connection: close\r\n"), "{answer:?}");
    // Nobody listens: the outer split, by connection.
    let address = world.bed.topology.host("web-1").address_like(vip(VIP4).ip());
    let answer = Client::new(&world.bed, "web-1", VIP4).get("/api/x");
    assert_eq!((answer.name.as_str(), answer.peer), ("a", address));
    assert!(answer.seen.starts_with("GET /api/x "), "{answer:?}");
    // The next one takes over.
    let agent = world.agent(&instance);
    assert!(Client::new(&world.bed, "web-1", VIP4).get("/api/x").seen.starts_with("GET /v2/x "));
    agent.stop().expect("an orderly end");
}
