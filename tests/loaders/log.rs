//! The debug object, loaded by balancer itself, and its lines, read with aya-log.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex};

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya_log::EbpfLogger;
use balancer_ebpf::abi::program_names;
use balancer_user::{
    compile::{self, Limits},
    kernel::{self, Datapath, PublishOptions, object},
    policy::{LoadBalancer, Tags},
    resolve::{
        Backend, BackendState, Class, Decision, Destination, Hashing, Resolved, Route, Vip, VipKey,
        VipOrigin,
    },
};
use harness::{Instance, NetNs, Segment, packet::flags::SYN, root_or_skip};
use log::{Level, Log, Metadata, Record};

/// See `build.rs`.
static DEBUG: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/debug.o"));

/// A VIP and its real; without one, connections are refused.
const SERVICES: [(&str, Option<&str>); 3] = [
    ("240.0.0.1:80", Some("10.1.0.1:8080")),
    ("240.0.0.2:80", None),
    ("[fd62:616c::1]:80", Some("[fd00::1]:8080")),
];

/// What each connection has told.
#[derive(Default)]
struct Lines(Mutex<Vec<(Level, String)>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        self.0.lock().expect("no test holds it").push(line);
    }
    fn flush(&self) {}
}

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// The services as resolution would give them.
fn resolved() -> Resolved {
    let mut resolved = Resolved { classes: vec![Class::default()], ..Resolved::default() };
    for (route, (vip, real)) in SERVICES.into_iter().enumerate() {
        let reals: Vec<SocketAddr> = real.map(end).into_iter().collect();
        resolved.inventory.extend(&reals);
        resolved.vips.push(Vip {
            key: VipKey::tcp(end(vip)),
            destination: Destination::tags("default", vip),
            also: None,
            origin: VipOrigin::Outbound,
            route,
            class_routes: BTreeMap::new(),
        });
        resolved.routes.push(Route {
            policy: None,
            decision: Decision::Forward,
            load_balancer: LoadBalancer::Maglev,
            hashing: Hashing::default(),
            http: None,
            backends: vec![Backend {
                destination: Destination::tags("default", vip),
                tags: Tags::new(),
                weight: 1,
                state: if reals.is_empty() { BackendState::Empty } else { BackendState::Ok },
                reals,
            }],
        });
    }
    resolved
}

#[test]
fn debug_object_tells_of_new_flows_and_of_refused_ones() -> Result<()> {
    let Some(root) = root_or_skip("loaders") else { return Ok(()) };
    assert!(!DEBUG.is_empty(), "this test was built with BALANCER_EBPF_SKIP set");
    let node = NetNs::new(root, "log")?;
    let instance = Instance::new(root, &node)?;
    let pins = instance.bpffs().join("balancer");
    let limits = Limits {
        flows: 1024,
        half_open: 1024,
        services: 16,
        sources: 16,
        routes: 16,
        reals: 16,
        counters: 16,
        arena_slots: 1 << 18,
    };
    let mut datapath = Datapath::create_from_object(&kernel::lock(&pins)?, &limits, DEBUG)?;
    let tables = compile::compile(&resolved(), datapath.assignment()?, &limits)?;
    datapath.publish(&tables, PublishOptions::default())?;

    let program = SchedClassifier::from_pin(pins.join("progs").join(program_names::INGRESS))?;
    let lines = Lines::default();
    let mut logger = EbpfLogger::init_from_id_with_logger(program.info()?.id(), &lines)
        .context("the loaded program has the map of aya-log")?;
    let mut told = |client: &str, vip: &str| -> Result<Vec<(Level, String)>> {
        let syn = Segment::new(client, vip).flags(SYN).bytes();
        let mut out = vec![0; syn.len() + 256];
        program.test_run(TestRunOptions {
            data_in: Some(&syn),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })?;
        logger.flush();
        Ok(std::mem::take(&mut *lines.0.lock().expect("no test holds it")))
    };
    let id = |real: &str| -> Result<u32> {
        let reals = datapath.reals()?;
        Ok(reals.iter().find(|row| row.addr == end(real)).context("a real")?.id)
    };

    let (a, b) = (id("10.1.0.1:8080")?, id("[fd00::1]:8080")?);
    let cases = [
        (
            "10.0.0.7:40000",
            "240.0.0.1:80",
            Level::Info,
            format!("new_flow 10.0.0.7:40000 -> 240.0.0.1:80 at 10.1.0.1:8080 (real {a})"),
        ),
        (
            "[fd00::7]:40000",
            "[fd62:616c::1]:80",
            Level::Info,
            format!("new_flow [fd00::7]:40000 -> [fd62:616c::1]:80 at [fd00::1]:8080 (real {b})"),
        ),
        (
            "10.0.0.7:40001",
            "240.0.0.2:80",
            Level::Warn,
            "blackhole 10.0.0.7:40001 -> 240.0.0.2:80".to_owned(),
        ),
    ];
    for (client, vip, level, expected) in cases {
        let told = told(client, vip)?;
        let [(found_level, line)] = &told[..] else { panic!("not one line: {told:?}") };
        // Names are filled up with blanks.
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((*found_level, words.join(" ")), (level, expected));
    }
    // A retransmission is none of these, and what is not ours is nobody's business.
    assert_eq!(told("10.0.0.7:40000", "240.0.0.1:80")?, []);
    assert_eq!(told("10.0.0.7:40000", "10.9.9.9:80")?, []);
    Ok(())
}

#[test]
fn only_the_debug_object_carries_the_map_of_the_log() -> Result<()> {
    let has = |object: &[u8]| object.windows(8).any(|window| window == b"AYA_LOGS");
    assert!(has(DEBUG), "the debug object was built without the feature `log`");
    assert!(!has(object::datapath()?), "libbpf refuses that map");
    Ok(())
}
