//! The families: what each is called, counts and is labelled with.
//!
//! `docs/metrics.md` is generated from this file, which `cargo xtask` compiles too: it names
//! nothing of this crate.

/// Type of a family in the text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the agent lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Values of one name, which differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name in the text format.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What is counted or measured; empty: a number without a unit.
    pub unit: &'static str,
    /// Names of its labels, in the order of the text.
    pub labels: &'static [&'static str],
    /// One sentence, which is its `# HELP` line too.
    pub help: &'static str,
}

/// A label and what its values are.
pub const LABELS: &[(&str, &str)] = &[
    ("mesh", "mesh of the destination; empty for Services of Kubernetes and listeners of Gateways"),
    ("service", "what the VIP stands for, as `show vips` prints it: `redis`, `backend.shop:6379`"),
    ("vip", "address and port that clients dial: `240.0.0.3:6379`, `[fd62:616c::3]:6379`"),
    ("source_class", "who dials; see below"),
    ("backend", "the service that the backend names"),
    ("tags", "the other tags that the backend names, `version=1.0,zone=east`; empty: none"),
    ("direction", "`in`: from clients to reals; `out`: from reals to clients"),
    ("reason", "see [reasons.md](reasons.md)"),
    ("fate", "what became of the packet: `pass`, `forward`, `reset`, `drop`"),
    (
        "outcome",
        "`changed`: packets see another set now; `unchanged`: the maps held it already; `refused`: the files have an error, the set before stays live; `failed`: the kernel or the disk refused, likewise",
    ),
    ("map", "the map, as `maps list` prints it"),
    ("setting", "the key of the configuration that sizes it"),
    (
        "slots",
        "size of the table: a rung of the ladder, or `other` where a policy asks for its own size",
    ),
    ("cause", "see [security.md](security.md#hostile-clients-of-the-http-proxy)"),
    ("state", "says itself"),
    ("version", "of the program"),
    ("abi", "version of the maps' layout"),
    ("le", "upper bound of the bucket, in the unit of the family"),
];

macro_rules! families {
    ($($(#[doc = $doc:literal])* $constant:ident = $name:literal, $kind:ident, $unit:literal,
       [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every family, in the order of the text and the docs.
        pub const ALL: &[Family] = &[$($constant,)*];
    };
}

families! {
    CONNECTIONS = "balancer_connections_total", Counter, "connections",
        ["mesh", "service", "vip", "source_class", "backend", "tags"],
        "Connections for which the backend was picked; those refused because it has no usable real are among them.";
    PACKETS = "balancer_packets_total", Counter, "packets",
        ["mesh", "service", "vip", "source_class", "backend", "tags", "direction"],
        "Packets of connections to the backend.";
    BYTES = "balancer_bytes_total", Counter, "bytes",
        ["mesh", "service", "vip", "source_class", "backend", "tags", "direction"],
        "Bytes of connections to the backend, Ethernet headers included.";
    BACKENDS = "balancer_backends", Gauge, "route backends",
        [],
        "Backends of routes that have series of their own in the families above, retired ones included.";
    BACKENDS_LIMIT = "balancer_backends_limit", Gauge, "route backends",
        [],
        "How many may have series of their own.";
    BACKENDS_MERGED = "balancer_backends_merged", Gauge, "route backends",
        [],
        "Backends of live routes beyond that limit, which are counted together under labels of value other.";
    REASON_PACKETS = "balancer_reason_packets_total", Counter, "packets",
        ["reason", "fate"],
        "Packets that ended in the reason.";
    ESTABLISHED = "balancer_established_connections", Gauge, "connections",
        [],
        "Connections whose handshake is complete and that have not closed, as the programs count them.";
    MAP_USED = "balancer_map_used", Gauge, "elements; of ARENA, words of 8 bytes",
        ["map", "setting"],
        "Elements in use.";
    MAP_CAPACITY = "balancer_map_capacity", Gauge, "elements; of ARENA, words of 8 bytes",
        ["map", "setting"],
        "Elements that fit.";
    NEW_FLOWS_LIMIT = "balancer_new_flows_limit", Gauge, "new flows a second",
        [],
        "New flows that each CPU records a second, of them half for one VIP; what is beyond ends in the reason new_flow_limit. 0: any number.";
    TABLES = "balancer_tables", Gauge, "routes",
        ["slots"],
        "Routes whose table has this many slots.";
    EPOCH = "balancer_epoch", Gauge, "",
        [],
        "Number of the live set.";
    READ = "balancer_read_seconds", Gauge, "seconds",
        [],
        "What reading the maps for this page took.";
    PUBLISHES = "balancer_publishes_total", Counter, "publishes",
        ["outcome"],
        "Publishes by outcome.";
    CHANGE = "balancer_change_seconds", Histogram, "seconds",
        [],
        "From when the agent noticed a change until packets see it.";
    FLIP = "balancer_publish_flip_seconds", Histogram, "seconds",
        [],
        "From the beginning of a publish until packets see the new set.";
    GRACE = "balancer_publish_grace_seconds", Histogram, "seconds",
        [],
        "From then on until no packet can see the set before.";
    SET_VALID = "balancer_set_valid", Gauge, "0 or 1",
        [],
        "Whether the live set is what the policy files say: 0 while they cannot be read or have an error.";
    SET_INVALID_SINCE = "balancer_set_invalid_since_timestamp_seconds", Gauge, "seconds since 1970",
        [],
        "Since when it is not; 0: it is.";
    SET_PROBLEMS = "balancer_set_problems", Gauge, "problems",
        [],
        "What is wrong with the policy files, in number.";
    LAST_PUBLISH = "balancer_last_publish_timestamp_seconds", Gauge, "seconds since 1970",
        [],
        "When the agent last published a set; 0: not since it started.";
    POLICY_PATHS = "balancer_policy_paths", Gauge, "paths",
        ["state"],
        "Paths of the key policies: watched, or missing or unreadable (state unreadable).";
    NAMES = "balancer_names", Gauge, "host names",
        ["state"],
        "Host names that the policies use: resolved, or unresolved.";
    LINKS = "balancer_links", Gauge, "links",
        ["state"],
        "Programs on interfaces, two for each interface: wanted by the key attach and the interfaces that are there, and attached.";
    RESTART = "balancer_restart_needed", Gauge, "keys",
        [],
        "Keys of the configuration whose change waits for a restart of the agent.";
    PROXY_REFUSED = "balancer_proxy_refused_total", Counter, "requests or connections",
        ["cause"],
        "Requests that the HTTP proxy answered with an error of its own, and connections of clients that it ended, since it began.";
    PROXY_CONNECTIONS = "balancer_proxy_connections", Gauge, "connections",
        [],
        "Connections that clients have to the HTTP proxy.";
    PROXY_REQUESTS = "balancer_proxy_requests", Gauge, "requests",
        [],
        "Requests that the HTTP proxy has under way.";
    PROXY_REALS = "balancer_proxy_real_connections", Gauge, "connections",
        ["state"],
        "Connections that the HTTP proxy has to reals: used by a request, or idle and kept for the next.";
    STARTED = "balancer_start_timestamp_seconds", Gauge, "seconds since 1970",
        [],
        "When the agent started.";
    BUILD = "balancer_build_info", Gauge, "always 1",
        ["version", "abi"],
        "Version of the agent and of the maps' layout.";
}
