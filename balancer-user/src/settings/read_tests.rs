//! What is read of a configuration file, and what is refused where.

use std::time::Duration;

use crate::proxy::{self, Added};

use super::{
    super::{AttachRule, Hook, Mode},
    *,
};

fn read_text(text: &str) -> Result<Settings, Vec<Diagnostic>> {
    read(&SourceText { name: "config.yaml".to_owned(), text: text.into() })
}

/// Checks that `text` has one problem, at `line:column`, in `field`, saying `part`.
#[track_caller]
fn refused(text: &str, place: &str, field: &str, part: &str) {
    let problems = read_text(text).expect_err("the file is wrong");
    let [problem] = problems.as_slice() else { panic!("more than one problem: {problems:?}") };
    let span = problem.span.expect("a position");
    assert_eq!(format!("{}:{}", span.line, span.column), place, "{problem:?}");
    assert_eq!(problem.field, field);
    let said = format!("{} {}", problem.message, problem.hint.as_deref().unwrap_or_default());
    assert!(said.contains(part), "{said}");
}

const FULL: &str = "\
policies: [/etc/balancer/policies]
attach:
- {interface: 'veth*', hook: tc, snat: true}
- {interface: eth0, hook: xdp, mode: dsr-l2}
forwarding: stack
snat: {ports: 50000-50999}
vips: {ipv4: 241.0.0.0/8, ipv6: 'fd00:1::/64'}
zone: east
no_route: deny
gateway_controller: example.com/node
allow_plain: true
drain: {deadline: 10m, on_gone: keep, previous_for: 5s}
l7_fallback: reset
proxy: {shards: 3, forwarded: replace, via: true, mark: 0x00000011, table: 7, limits: {connections: 11, connections_of_one: 12, head_bytes: 16_384, head_fields: 13, head_within: 1s, idle: 2m, idle_at_end: 5m, stalled: 3h, streams: 14, connect: 100ms, real_idle: 4s, real_kept: 0}}
limits: {flows: 1, half_open: 2, services: 3, sources: 4, routes: 5, reals: 6, counters: 7, arena_slots: 4_194_304, new_flows: 9_000}
metrics: 127.0.0.1:9901
api: {socket: /run/x.sock}
bpffs: /sys/fs/bpf/x
state: /tmp/x
";

#[test]
fn every_key_is_read() {
    let settings = read_text(FULL).unwrap();
    assert_eq!(settings.policies, [std::path::PathBuf::from("/etc/balancer/policies")]);
    assert_eq!(
        settings.attach[1],
        AttachRule {
            interface: "eth0".to_owned(),
            hook: Hook::Xdp,
            mode: Mode::DsrL2,
            generic: false,
            snat: false,
        }
    );
    assert!(settings.attach[0].snat);
    assert_eq!(settings.forwarding, Forwarding::Stack);
    assert_eq!(settings.snat_ports.to_string(), "50000-50999");
    assert_eq!(settings.vips4, ("241.0.0.0".parse().unwrap(), 8));
    assert_eq!(settings.vips6, ("fd00:1::".parse().unwrap(), 64));
    assert_eq!(settings.zone.as_deref(), Some("east"));
    assert_eq!(settings.no_route, NoRoute::Deny);
    assert_eq!(settings.gateway_controller, "example.com/node");
    assert!(settings.allow_plain);
    assert_eq!(
        settings.drain,
        Drain {
            deadline: Some(Duration::from_secs(600)),
            on_gone: OnGone::Keep,
            previous_for: Duration::from_secs(5),
        }
    );
    assert_eq!(settings.l7_fallback, L7Fallback::Reset);
    assert_eq!(settings.proxy_mark, ProxyMark { handed: 1, own: 16 });
    assert_eq!(settings.proxy_table, 7);
    assert_eq!(settings.proxy_shards.map(|shards| shards.get()), Some(3));
    assert_eq!(
        settings.proxy_limits,
        proxy::Limits {
            connections: 11,
            connections_of_one: 12,
            head_bytes: 16_384,
            head_fields: 13,
            head_within: Duration::from_secs(1),
            idle: Duration::from_secs(120),
            idle_at_end: Duration::from_secs(300),
            stalled: Duration::from_secs(3 * 3600),
            streams: 14,
            connect: Duration::from_millis(100),
            real_idle: Duration::from_secs(4),
            real_kept: 0,
        }
    );
    assert_eq!(settings.proxy_added, Added { forwarded: Forwarded::Replace, via: true });
    assert_eq!(
        settings.limits,
        Some(Limits {
            flows: 1,
            half_open: 2,
            services: 3,
            sources: 4,
            routes: 5,
            reals: 6,
            counters: 7,
            arena_slots: 4_194_304,
        })
    );
    assert_eq!(settings.new_flows, NewFlows::AtMost(9_000.try_into().unwrap()));
    assert_eq!(settings.metrics, Some("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(settings.api_socket, std::path::Path::new("/run/x.sock"));
    assert_eq!(settings.bpffs, std::path::Path::new("/sys/fs/bpf/x"));
    assert_eq!(settings.state, std::path::Path::new("/tmp/x"));
    assert!(settings.present.contains(&"drain.deadline".to_owned()), "{:?}", settings.present);
    assert!(settings.present.contains(&"limits.flows".to_owned()), "{:?}", settings.present);
}

#[test]
fn empty_file_is_all_defaults() {
    for text in ["", "# nothing\n", "{}"] {
        assert_eq!(read_text(text).unwrap(), Settings::default(), "{text:?}");
    }
}

#[test]
fn unknown_keys_are_refused_with_what_is_meant() {
    refused("zone: a\nlimit: {flows: 1}\n", "2:1", "limit", "did you mean `limits`?");
    refused("limits: {flow: 1}\n", "1:10", "limits.flow", "did you mean `flows`?");
    refused("vips: {v4: 240.0.0.0/8}\n", "1:8", "vips.v4", "known here: ipv4, ipv6, protocols");
    refused("attach:\n- {interface: a, hook: tc, mod: nat}\n", "2:28", "attach[0].mod", "`mode`");
}

#[test]
fn wrong_types_and_values_are_refused_where_they_stand() {
    refused("limits: {flows: many}\n", "1:17", "limits.flows", "`many` is no whole number");
    refused("limits: {flows: 0}\n", "1:17", "limits.flows", "holds nothing");
    refused("limits: {flows: -1}\n", "1:17", "limits.flows", "no whole number");
    refused("limits: {new_flows: none}\n", "1:21", "limits.new_flows", "not `off`");
    refused("limits: {new_flows: -1}\n", "1:21", "limits.new_flows", "no whole number");
    refused("limits: {new_flows: 4294967296}\n", "1:21", "limits.new_flows", "up to 4294967295");
    refused("limits: {new_flows: [1]}\n", "1:21", "limits.new_flows", "a list is no");
    refused("limits: {new_flow: 1}\n", "1:10", "limits.new_flow", "did you mean `new_flows`?");
    refused("limits: [1]\n", "1:9", "limits", "a list where keys belong");
    refused("policies: /etc\n", "1:11", "policies", "where a list belongs");
    refused("no_route: drop\n", "1:11", "no_route", "none of direct, deny");
    refused("allow_plain: yes please\n", "1:14", "allow_plain", "none of false, true");
    refused("gateway_controller: node\n", "1:21", "gateway_controller", "a domain, `/`");
    refused("vips: {ipv4: 240.0.0.1/8}\n", "1:14", "vips.ipv4", "`240.0.0.0/8`");
    refused("drain: {previous_for: none}\n", "1:23", "drain.previous_for", "no duration");
    refused("drain: {deadline: 5}\n", "1:19", "drain.deadline", "`5s`");
    refused("metrics: 9901\n", "1:10", "metrics", "127.0.0.1:9901");
    refused("bpffs: balancer\n", "1:8", "bpffs", "begins with `/`");
    refused("attach: [{interface: eth0}]\n", "1:10", "attach[0].hook", "hook is missing");
    refused("- zone\n", "1:3", "", "a list where keys belong");
    refused("zone: a\nzone: b\n", "2:1", "zone", "twice");
    refused("zone: a\n---\nzone: b\n", "3:1", "", "a second one");
}

#[test]
fn limits_of_the_proxy_are_refused_where_they_stand_with_their_bounds() {
    let wrong = [
        ("connections: 0", "1:31", "connections", "`0` is no whole number from 1 to 4294967295"),
        ("head_bytes: 8191", "1:30", "head_bytes", "from 8192 to 16777216"),
        ("head_fields: 1001", "1:31", "head_fields", "from 1 to 1000"),
        ("streams: many", "1:27", "streams", "`many` is no whole number"),
        ("real_kept: -1", "1:29", "real_kept", "from 0 to"),
        ("head_within: 15", "1:31", "head_within", "`15s` for seconds"),
        ("idle: 99ms", "1:24", "idle", "the least is `100ms`"),
        ("stalled: 366d", "1:27", "stalled", "the most is `365d`"),
        ("head: 1", "1:18", "head", "did you mean `head_bytes`?"),
    ];
    for (text, place, field, part) in wrong {
        refused(
            &format!("proxy: {{limits: {{{text}}}}}\n"),
            place,
            &format!("proxy.limits.{field}"),
            part,
        );
    }
    refused("proxy: {limits: 7}\n", "1:17", "proxy.limits", "write it like `connections: …`");
}

#[test]
fn every_problem_is_reported_in_the_order_of_positions() {
    let problems = read_text("zon: a\nlimits: {flows: x, flow: 1}\nno_route: y\n").unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["zon", "limits.flows", "limits.flow", "no_route"]);
}

#[test]
fn new_flows_are_limited_by_the_room_for_half_open_ones_unless_the_file_says_otherwise() {
    let limit = |text: &str| {
        let settings = read_text(text).unwrap();
        settings.new_flows.limit(&settings.limits.unwrap_or_default()).map(NonZeroU32::get)
    };
    assert_eq!(limit(""), Some(32_768));
    assert_eq!(limit("limits: {half_open: 1000}\n"), Some(500));
    assert_eq!(limit("limits: {half_open: 1}\n"), Some(1));
    assert_eq!(limit("limits: {half_open: 1000, new_flows: 7}\n"), Some(7));
    for off in ["0", "off", "'off'"] {
        assert_eq!(limit(&format!("limits: {{new_flows: {off}}}\n")), None);
    }
}

#[test]
fn a_limit_of_new_flows_alone_says_nothing_of_sizes() {
    let settings = read_text("limits: {new_flows: 7}\n").unwrap();
    assert_eq!(settings.limits, None);
    assert_eq!(settings.present, ["limits.new_flows"]);
    assert!(settings.positions.contains_key("limits.new_flows"));
}

#[test]
fn source_translation_is_asked_for_by_interface_and_with_a_range_of_ports() {
    let settings = read_text("attach:\n- {interface: a, hook: xdp, snat: true}\n").unwrap();
    assert_eq!((settings.attach[0].snat, settings.snat_ports), (true, PortRange::default()));
    assert!(!settings.present.contains(&"snat".to_owned()));
    refused(
        "attach:\n- {interface: a, hook: xdp, mode: dsr-l2, snat: true}\n",
        "2:49",
        "attach[0].snat",
        "answer clients by themselves",
    );
    refused("attach: [{interface: a, hook: tc, snat: yes}]\n", "1:41", "attach[0].snat", "`yes`");
    let wrong = [
        ("snat: {ports: 40000-39999}\n", "1:15", "is empty", "`39999-40000`"),
        ("snat:\n  ports: 0-100\n", "2:10", "port 0", "`1-100`"),
        ("snat: {ports: 60000-65536}\n", "1:15", "ends above 65535", "`61000-65535`"),
        ("snat: {ports: 70000-80000}\n", "1:15", "begins above 65535", "`61000-65535`"),
        ("snat: {ports: 61000}\n", "1:15", "no range of ports", "`61000-65535`"),
        ("snat: {ports: low-high}\n", "1:15", "`low-high` is no range", "`61000-65535`"),
        ("snat: {ports: [1, 2]}\n", "1:15", "a list where text", "text belongs"),
        ("snat: {ports: }\n", "1:8", "nothing where text", "text belongs"),
    ];
    for (text, place, what, instead) in wrong {
        refused(text, place, "snat.ports", what);
        refused(text, place, "snat.ports", instead);
    }
    refused("snat: true\n", "1:7", "snat", "write it like `ports: …`");
    refused("snat: {port: 1-2}\n", "1:8", "snat.port", "did you mean `ports`?");
}
