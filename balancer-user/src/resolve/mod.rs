//! Typed policies into one route for each source class × VIP.
//!
//! Belongs here: the inventory (services, endpoints), VIPs, which policy wins, wildcards,
//! locality, what a backend's endpoints are. Does not know slots, ids, or the kernel; carries
//! text positions without looking at them. Pure: the same [`PolicySet`]
//! and [`ResolveSettings`] give the same [`Resolved`], whatever the order of the files.

#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::policy::{Diagnostic, LoadBalancer, Meta, PolicySet, Tags};

mod allocate;
mod change;
mod check;
mod classes;
pub mod destination;
mod dialled;
pub mod effective;
mod findings;
pub mod gateway;
pub mod http;
pub mod inventory;
pub mod kubernetes;
pub mod mesh_http;
pub mod mesh_policy;
pub mod mesh_tcp;
pub mod names;
pub mod objects;
mod precedence;
pub mod resolver;
pub mod selection;
mod signatures;
pub mod sources;
pub mod split;
pub mod strategy;
mod vip_key;
mod vips;

pub use self::http::HttpRules;
pub use change::{Change, Parts, Resolution};
pub use check::tags_text;
pub use destination::{Destination, DestinationKind, VipOwner};
pub use names::{HostAnswer, Names, host_names};
pub use resolver::Resolver;
pub use vip_key::{NoVipKey, VipKey, VipProtocol};
pub use vips::port_in_name;

/// Resolves `set`: its VIPs, and for each the route of every class of sources. Findings across
/// resources are in [`Resolved::diagnostics`]; where one of them is an error, the outcome is
/// whole but must not be loaded.
pub fn resolve(set: &PolicySet, settings: &ResolveSettings) -> Resolved {
    outcome(set, settings).resolved
}

/// What [`resolve`] gives, and what it was found by.
struct Outcome<'a> {
    resolved: Resolved,
    resolver: Resolver<'a>,
    /// The meshes in which something that can be dialled has no endpoint of its own.
    bare: BTreeSet<Arc<str>>,
    /// What routes are made from; see [`classes`].
    recipes: Vec<(classes::Recipe, usize)>,
    of_objects: Vec<(classes::OfObject, usize)>,
}

fn outcome<'a>(set: &'a PolicySet, settings: &'a ResolveSettings) -> Outcome<'a> {
    let mut resolver = Resolver::new(set, settings);
    let mut findings = findings::Findings::new(set, &settings.names);
    check::meshes(set, &mut findings);
    check::dataplanes(&resolver.dataplanes, &settings.names, &mut findings);
    check::traffic_routes(&resolver.inventory, &resolver.policies, &mut findings);
    check::sources(&resolver.dataplanes, &resolver.policies, &mut findings);
    check::objects(set, settings, &mut findings);
    gateway::gateways(&resolver.attached, &settings.gateway_controller, &mut findings);
    gateway::routes(&resolver, &mut findings);
    let signatures = signatures::Signatures::new(&mut resolver);
    let vips = vips::plan(&resolver, &mut findings);
    mesh_tcp::check(&resolver, &signatures, &mut findings);
    mesh_http::check(&resolver, &signatures, &mut findings);
    strategy::check(&resolver, &mut findings);
    gateway::losers(&resolver, &signatures, &vips.planned, &mut findings);
    let assembled = classes::assemble(&resolver, &signatures, &vips.planned);
    check::routes(&resolver, &assembled.routes, &mut findings);
    let resolved = Resolved {
        vips: assembled.vips,
        sources: assembled.sources,
        classes: assembled.classes,
        routes: assembled.routes,
        inventory: resolver.inventory.addresses().to_vec(),
        assigned: vips.assigned,
        diagnostics: findings.into_sorted(),
    };
    let (recipes, of_objects) = (assembled.recipes, assembled.of_objects);
    Outcome { resolved, resolver, bare: vips.bare, recipes, of_objects }
}

/// What resolution depends on besides the policies.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolveSettings {
    /// IPv4 range that VIPs are allocated from: network and prefix length.
    pub vips4: (std::net::Ipv4Addr, u8),
    /// IPv6 range that VIPs are allocated from.
    pub vips6: (std::net::Ipv6Addr, u8),
    /// This node's zone.
    pub zone: Option<String>,
    /// What a destination gets that no TrafficRoute of its mesh matches (decision D6).
    pub no_route: NoRoute,
    /// The `controllerName` of the GatewayClasses whose Gateways this node carries out.
    pub gateway_controller: String,
    /// Connections to something outside the mesh that expects TLS are carried as they come; else
    /// they are refused.
    pub allow_plain: bool,
    /// Protocols of VIPs of meshes, where they are not just TCP.
    pub protocols: Vec<ProtocolRule>,
    /// What host names stand for.
    pub names: Names,
    /// Existing VIP assignments (decision D2): kept as they are.
    pub assigned: VipAssignments,
}

/// The namespace of Kuma's own objects on Kubernetes: its policies are for everybody.
const SYSTEM_NAMESPACE: &str = "kuma-system";

/// The controller name where the configuration names none.
pub const GATEWAY_CONTROLLER: &str = "balancer.local/node-agent";

/// The protocol of a service's VIPs, where the configuration says one (`vips.protocols`). Rules
/// of one service add up; a VIP that no rule means is of TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolRule {
    /// The mesh.
    pub mesh: String,
    /// Value of `kuma.io/service`, or name of an object that stands for a service.
    pub service: String,
    /// The port that clients dial; `None`: each of the service's.
    pub port: Option<std::num::NonZeroU16>,
    /// What they dial it with.
    pub protocol: VipProtocol,
}

/// `no_route` of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoRoute {
    /// To the service itself.
    #[default]
    Direct,
    /// Refused.
    Deny,
}

/// Whose → its allocated address of each family. Copies share what they have in common.
pub type VipAssignments = imbl::OrdMap<VipOwner, AssignedVip>;

/// Allocated addresses of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignedVip {
    /// IPv4 address.
    pub v4: Option<std::net::Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<std::net::Ipv6Addr>,
}

/// A VIP and what each class does with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Vip {
    /// What is dialled.
    pub key: VipKey,
    /// What it stands for.
    pub destination: Destination,
    /// The Service that has the same address and port, where `destination` is a mesh's name for
    /// it: its TCPRoutes may decide too.
    pub also: Option<Destination>,
    /// Where the address comes from.
    pub origin: VipOrigin,
    /// Index into [`Resolved::routes`] for class 0 and every class not in `class_routes`.
    pub route: usize,
    /// Classes (index into [`Resolved::classes`]) whose route differs from `route`.
    pub class_routes: BTreeMap<usize, usize>,
}

/// Where a VIP's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VipOrigin {
    /// A Dataplane's outbound names it.
    Outbound,
    /// A control plane wrote it below an object's `status`.
    Status,
    /// Allocated from the configured range.
    Allocated,
    /// `clusterIPs` of a Service.
    Service,
    /// `spec.addresses` of a Gateway.
    Gateway,
}

/// A workload address.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The address that its packets come from.
    pub address: IpAddr,
    /// The Dataplanes that have it: (mesh, name), sorted.
    pub dataplanes: Vec<(String, String)>,
    /// Index into [`Resolved::classes`].
    pub class: usize,
}

/// All sources with the same routes. Index 0 is everybody whose address is no source
/// (decision D1), and sources that are routed just like them; `sources` does not list those.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Addresses, sorted.
    pub sources: Vec<IpAddr>,
}

/// What one class does with one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The policy that decided; `None`: no policy, `decision` says what then.
    pub policy: Option<PolicyRef>,
    /// Forward or refuse.
    pub decision: Decision,
    /// How connections are spread.
    pub load_balancer: LoadBalancer,
    /// By what, where it goes by a hash.
    pub hashing: Hashing,
    /// In written order; zero-weight entries are kept (state [`BackendState::Drained`]) so that
    /// they can be shown; they take nothing.
    pub backends: Vec<Backend>,
    /// What happens to requests, where they are told apart. It goes before the rest of the route,
    /// which is what connections get while nobody is there to carry this out.
    pub http: Option<Arc<HttpRules>>,
}

/// Where a load balancer goes by a hash: of what, and how fine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hashing {
    /// Of the client's address alone; else of addresses and ports (decision D7).
    pub by_source: bool,
    /// The number of slots that a policy asks for, a prime. `None`: as many as shares need.
    pub slots: Option<u32>,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Split over the backends as the policy says.
    Forward,
    /// No policy: to the service itself.
    Direct,
    /// Refused: by the configuration where there is no policy, or by a policy that gives no
    /// backend any weight.
    Reject,
}

/// Which policy.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct PolicyRef {
    /// `TrafficRoute`, `MeshTCPRoute`.
    pub kind: String,
    /// Its mesh.
    pub mesh: String,
    /// Its name.
    pub name: String,
}

impl PolicyRef {
    /// The policy with this identity.
    fn of(meta: &Meta) -> Self {
        Self { kind: meta.kind.to_owned(), mesh: meta.mesh.clone(), name: meta.name.clone() }
    }
}

/// A weighted destination of a route, wildcards replaced, endpoints found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// What it is.
    pub destination: Destination,
    /// The other tags that endpoints must have.
    pub tags: Tags,
    /// Relative weight.
    pub weight: u32,
    /// Usable or not.
    pub state: BackendState,
    /// Endpoints of the VIP's family, sorted, each once. Empty unless `state` is `Ok` or
    /// `Drained`.
    pub reals: Vec<SocketAddr>,
}

/// State of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes its share.
    Ok,
    /// The service exists but has no usable endpoint here: its share is refused (D10).
    Empty,
    /// The service does not exist: its share is refused (D10).
    Invalid,
    /// Weight 0.
    Drained,
}

/// The whole outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Sorted by key.
    pub vips: Vec<Vip>,
    /// Sorted by address.
    pub sources: Vec<Source>,
    /// Index 0 first, the others by their first source.
    pub classes: Vec<Class>,
    /// Distinct routes, in the order in which VIPs and classes first name them.
    pub routes: Vec<Route>,
    /// Every endpoint of the inventory in any state, sorted: a real in none of them is *gone*
    /// (decision D15).
    pub inventory: Vec<SocketAddr>,
    /// All assignments, those in `ResolveSettings::assigned` included.
    pub assigned: VipAssignments,
    /// Findings: outbounds on loopback, http sections not carried out, VIPs claimed twice, …
    pub diagnostics: Vec<(Meta, Diagnostic)>,
}

#[cfg(test)]
pub(crate) mod tests;
