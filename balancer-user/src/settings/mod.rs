//! The configuration file (design 9.5): what `load` uses of it, what it leaves to the agent.
//!
//! Belongs here: the keys, their defaults, and where in the file one of them is wrong. Does not
//! know what a policy is; it reads YAML by the policy room's reader, so that positions and the
//! treatment of duplicate keys are the same in both.
//!
//! Every key may be absent. A key that is there is validated, also one that only the agent uses.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use crate::{
    compile::Limits,
    policy::Span,
    proxy::Added,
    resolve::{GATEWAY_CONTROLLER, Names, NoRoute, ProtocolRule, ResolveSettings, VipAssignments},
};

mod attach;
mod example;
mod ports;
mod protocols;
mod proxy;
mod read;
mod undone;
mod values;

pub use example::EXAMPLE;
pub use ports::PortRange;
pub use proxy::ProxyMark;
pub use read::read;
pub use undone::undone;
pub(crate) use values::duration;

/// The whole file, defaults where it is silent.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `policies`: files and directories that the agent loads and watches.
    pub policies: Vec<PathBuf>,
    /// `attach`: interfaces that the agent attaches to, also those that appear later.
    pub attach: Vec<AttachRule>,
    /// `forwarding`: what follows translation.
    pub forwarding: Forwarding,
    /// `snat.ports`: what reals see as their clients' ports where an interface asks for that.
    pub snat_ports: PortRange,
    /// `vips.ipv4`: network and prefix length that VIPs are allocated from (decision D2).
    pub vips4: (Ipv4Addr, u8),
    /// `vips.ipv6`.
    pub vips6: (Ipv6Addr, u8),
    /// `vips.protocols`: what VIPs of meshes are dialled with, where that is not just TCP.
    pub protocols: Vec<ProtocolRule>,
    /// `zone`: this node's zone, for locality.
    pub zone: Option<String>,
    /// `no_route`: what a destination gets that no policy matches (decision D6).
    pub no_route: NoRoute,
    /// `gateway_controller`: the `controllerName` of the GatewayClasses that are ours.
    pub gateway_controller: String,
    /// `allow_plain`: connections to something outside the mesh that expects TLS are carried as
    /// they come.
    pub allow_plain: bool,
    /// `drain`: what becomes of established connections (decision D15).
    pub drain: Drain,
    /// `l7_fallback`: what HTTP routes do while no proxy listens.
    pub l7_fallback: L7Fallback,
    /// `proxy.mark`: the marks of packets for the proxy and of its own.
    pub proxy_mark: ProxyMark,
    /// `proxy.shards`: threads of the proxy; `None`: one for each processor, 16 at most.
    pub proxy_shards: Option<NonZeroU32>,
    /// `proxy.forwarded` and `proxy.via`: what it adds to headers.
    pub proxy_added: Added,
    /// `proxy.limits`: what clients and backends may take of each of its threads.
    pub proxy_limits: crate::proxy::Limits,
    /// `proxy.table`: the routing table that delivers packets to it.
    pub proxy_table: u32,
    /// `limits`: sizes of the maps; `None` where the file does not have the key.
    pub limits: Option<Limits>,
    /// `limits.new_flows`: how many each CPU records a second.
    pub new_flows: NewFlows,
    /// `dns.servers`: whom the agent asks for addresses of names; empty: the system's servers.
    pub dns_servers: Vec<SocketAddr>,
    /// `log`: what the agent says on standard error.
    pub log: Log,
    /// `metrics`: where the agent serves them.
    pub metrics: Option<SocketAddr>,
    /// `api.socket`: where the agent listens.
    pub api_socket: PathBuf,
    /// `bpffs`: the pin directory.
    pub bpffs: PathBuf,
    /// `state`: the state directory.
    pub state: PathBuf,
    /// The keys that the file has, in its order: `policies`, `drain.deadline`, …
    pub present: Vec<String>,
    /// Where in the file the value of each key stands: `attach[0].hook`, `drain.deadline`, …
    pub positions: BTreeMap<String, Span>,
}

/// One entry of `attach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRule {
    /// `interface`: a name, or a pattern with `*`.
    pub interface: String,
    /// `hook`.
    pub hook: Hook,
    /// `mode`: of the hook `xdp`.
    pub mode: Mode,
    /// `generic`: the hook `xdp` before the stack, for drivers that run no XDP programs.
    pub generic: bool,
    /// `snat`: reals see the node as the client of what comes in there.
    pub snat: bool,
}

/// `attach[].hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `tc`: ingress and egress.
    Tc,
    /// `xdp`.
    Xdp,
}

/// `attach[].mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `nat`: addresses are translated both ways.
    #[default]
    Nat,
    /// `dsr-ipip`: encapsulated; the real answers the client itself.
    DsrIpip,
    /// `dsr-l2`: the frame's destination is changed; the real answers the client itself.
    DsrL2,
}

/// `forwarding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// `auto`: direct where nobody would miss packets, else the stack.
    #[default]
    Auto,
    /// `stack`: the kernel routes on.
    Stack,
    /// `direct`: to the next interface without the stack, whoever would miss packets.
    Direct,
}

impl Forwarding {
    /// As the file and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Stack => "stack",
            Self::Direct => "direct",
        }
    }
}

/// `drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// `deadline`: how long connections of a draining backend may stay; `None`: as they like.
    pub deadline: Option<Duration>,
    /// `on_gone`: what happens to connections whose real has left the inventory.
    pub on_gone: OnGone,
    /// `previous_for`: how long the table before a change still serves connections that have
    /// no entry.
    pub previous_for: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { deadline: None, on_gone: OnGone::Reset, previous_for: Duration::from_secs(60 * 60) }
    }
}

/// `drain.on_gone`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGone {
    /// `reset`: after 5 s, so that a file rewritten in two steps breaks nothing.
    #[default]
    Reset,
    /// `keep`: until they close.
    Keep,
}

/// `limits.new_flows`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewFlows {
    /// Absent: as many as fill half of the room for half-open flows in a second.
    #[default]
    HalfOfHalfOpen,
    /// `off` or 0: any number.
    Any,
    /// So many a second.
    AtMost(NonZeroU32),
}

impl NewFlows {
    /// What a CPU may record a second where the maps have these sizes; `None`: any number.
    pub fn limit(self, limits: &Limits) -> Option<NonZeroU32> {
        match self {
            Self::HalfOfHalfOpen => {
                Some(NonZeroU32::new(limits.half_open / 2).unwrap_or(NonZeroU32::MIN))
            }
            Self::Any => None,
            Self::AtMost(number) => Some(number),
        }
    }
}

/// `l7_fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum L7Fallback {
    /// `l4`: the outer split applies.
    #[default]
    L4,
    /// `reset`: connections are refused.
    Reset,
}

/// `log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `format`.
    pub form: LogForm,
    /// `level`: this and what is graver.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogForm {
    /// `text`: for people.
    #[default]
    Text,
    /// `json`: one object a line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`: what the agent cannot do.
    Error,
    /// `warn`: and what a person should look at.
    Warn,
    /// `info`: and what changed.
    #[default]
    Info,
    /// `debug`: and what was looked at and found as it was.
    Debug,
}

/// Where pins are where nobody says otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/balancer";
/// Where state is kept where nobody says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/balancer";

impl Default for Settings {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            attach: Vec::new(),
            forwarding: Forwarding::default(),
            snat_ports: PortRange::default(),
            vips4: (Ipv4Addr::new(240, 0, 0, 0), 8),
            // A unique local prefix (RFC 4193): fd, then "bal" in ASCII.
            vips6: (Ipv6Addr::new(0xfd62, 0x616c, 0, 0, 0, 0, 0, 0), 64),
            protocols: Vec::new(),
            zone: None,
            no_route: NoRoute::default(),
            gateway_controller: GATEWAY_CONTROLLER.to_owned(),
            allow_plain: false,
            drain: Drain::default(),
            l7_fallback: L7Fallback::default(),
            proxy_mark: ProxyMark::default(),
            proxy_shards: None,
            proxy_added: Added::default(),
            proxy_limits: crate::proxy::Limits::default(),
            proxy_table: 2977,
            limits: None,
            new_flows: NewFlows::default(),
            dns_servers: Vec::new(),
            log: Log::default(),
            metrics: None,
            api_socket: "/run/balancer/agent.sock".into(),
            bpffs: DEFAULT_BPFFS.into(),
            state: DEFAULT_STATE.into(),
            present: Vec::new(),
            positions: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// What resolution depends on, with the VIPs already assigned.
    pub fn resolve_settings(&self, assigned: VipAssignments) -> ResolveSettings {
        ResolveSettings {
            vips4: self.vips4,
            vips6: self.vips6,
            zone: self.zone.clone(),
            no_route: self.no_route,
            gateway_controller: self.gateway_controller.clone(),
            allow_plain: self.allow_plain,
            protocols: self.protocols.clone(),
            names: Names::default(),
            assigned,
        }
    }
}
