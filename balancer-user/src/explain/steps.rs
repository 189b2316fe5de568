//! The sentences: one for each decision, in the order in which they were taken.

use std::net::SocketAddr;

use super::{
    Input, Query, Source,
    asked::{Asked, HttpRoute},
    shares::Shares,
};
use crate::{
    policy::{HashFunction, LoadBalancer, SERVICE_TAG, SplitEntry, TrafficRoute},
    resolve::{
        Decision, Destination, Resolver, Route, Vip, VipKey, VipOrigin, VipProtocol,
        inventory::MESH_TAG,
        selection::{ANY, Candidate, Mismatch, Rule},
        split::outer_split,
        tags_text,
    },
};

/// Names that one sentence lists at most.
pub(super) const LISTED: usize = 5;

/// What the sentences are about.
pub(super) struct Told<'t, 'a> {
    pub(super) input: &'t Input<'a>,
    pub(super) resolver: &'t Resolver<'a>,
    pub(super) query: &'t Query,
    pub(super) vip: &'t Vip,
    /// The listener that the question names, of those that the VIP stands for.
    pub(super) listener: Option<&'t Destination>,
    pub(super) source: &'t Source<'a>,
    pub(super) route: &'t Route,
}

impl Told<'_, '_> {
    pub(super) fn steps(
        &self,
        others: &[VipKey],
        shares: &Shares,
        http: Option<(&HttpRoute<'_>, Option<&Asked>)>,
    ) -> Vec<String> {
        let mut steps = Vec::new();
        if self.vip.destination.mesh().is_empty() {
            steps.extend([self.asker_of_object(), self.destination(others)]);
            steps.extend(self.listeners(http.map(|(http, _)| http)));
            steps.extend(self.attached());
        } else {
            steps.extend([self.asker(), self.destination(others)]);
            steps.extend(self.protocol());
            steps.extend(self.policies());
            steps.extend(self.strategies());
            steps.extend(self.attached_besides());
        }
        match http {
            Some((http, asked)) => {
                steps.extend(self.http(http, asked));
                steps.push(
                    "connections: this version has no proxy that carries HTTP rules out, so each \
                     connection is decided as a whole, as follows"
                        .to_owned(),
                );
            }
            None => steps.extend(self.no_http()),
        }
        steps.extend(self.traffic_route().into_iter().flat_map(|policy| {
            outer_split(&policy.conf).iter().filter_map(|entry| self.wildcards(entry))
        }));
        for (index, backend) in self.route.backends.iter().enumerate() {
            steps.push(self.backend(backend, index, shares));
        }
        steps.extend(self.locality(&self.route.backends));
        steps.extend(self.table(shares));
        steps.extend(self.class());
        steps
    }

    /// The TrafficRoute that decides.
    fn traffic_route(&self) -> Option<&TrafficRoute> {
        self.source.traffic_route()
    }

    fn asker(&self) -> String {
        let source = self.source;
        let sets: Vec<String> = source.tag_sets.iter().map(tags_text).collect();
        let tags = sets.join("; ");
        match (source.dataplane, source.address) {
            (Some(dataplane), address) => {
                let meta = &dataplane.meta;
                let at = address.map_or(String::new(), |address| format!(" at {address}"));
                let who = format!("source: Dataplane {} of mesh {}{at}", meta.name, meta.mesh);
                if meta.mesh != self.vip.destination.mesh() {
                    return format!(
                        "{who}, which mesh {} does not know: there it counts as {tags}",
                        self.vip.destination.mesh()
                    );
                }
                let also = match source.others {
                    0 => String::new(),
                    more => format!("; {more} more with these tags are routed the same"),
                };
                format!("{who}, tags {tags}{also}")
            }
            (None, Some(address)) => {
                format!("source: {address} is the address of no Dataplane, so it counts as {tags}")
            }
            (None, None) => format!(
                "source: a workload with one inbound tagged {tags}; no Dataplane of mesh {} has \
                 these tags",
                self.vip.destination.mesh()
            ),
        }
    }

    fn destination(&self, others: &[VipKey]) -> String {
        let vip = self.vip;
        let origin = match vip.origin {
            VipOrigin::Outbound => "named by an outbound",
            VipOrigin::Status => "named by its status",
            VipOrigin::Allocated => "allocated",
            VipOrigin::Service => "an address of the Service",
            VipOrigin::Gateway => "an address of the Gateway",
        };
        let mut step =
            format!("destination: VIP {} of {}, {origin}", vip.key, named(&vip.destination),);
        if !others.is_empty() {
            step +=
                &format!("; routed the same: {}", listed(others.iter().map(ToString::to_string)));
        }
        step
    }

    fn protocol(&self) -> Option<String> {
        if self.vip.key.protocol == VipProtocol::Udp {
            return Some(match self.vip.destination {
                Destination::Service { .. } => "protocol: udp, as the Service says".to_owned(),
                _ => "protocol: udp, as vips.protocols of the configuration says".to_owned(),
            });
        }
        let service = self.resolver.inventory.endpoints(&self.vip.destination)?;
        let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready).count();
        let name = service.protocol().name();
        if service.declared.is_some() {
            return Some(format!("protocol: {name}, as {} says", self.vip.destination));
        }
        Some(match ready {
            0 => format!("protocol: {name}, as no endpoint of {} is ready", self.vip.destination),
            _ => format!(
                "protocol: {name}, from the tags of {}",
                counted(ready, "ready endpoint", "ready endpoints")
            ),
        })
    }

    fn policies(&self) -> Vec<String> {
        let mesh = self.vip.destination.mesh();
        let ranking = &self.source.ranking;
        let all = self.resolver.traffic_routes(mesh).len();
        let mut steps = self.mesh_http_routes();
        if self.source.by_mesh_http {
            return steps;
        }
        steps.extend(self.mesh_tcp_routes());
        if self.source.mesh_tcp.winner.is_some() {
            return steps;
        }
        let Some(winner) = ranking.winner else {
            steps.push(self.no_policy(all));
            return steps;
        };
        let matching = 1 + ranking.losers.len();
        let name = &winner.route.meta.name;
        steps.push(format!(
            "policy: {matching} of {all} TrafficRoutes of mesh {mesh} match; {name} wins with {}",
            rank_text(&winner)
        ));
        for (loser, rule) in ranking.losers.iter().take(LISTED) {
            steps.push(format!(
                "policy: {} also matches and ranks {}; {name} goes first: {}",
                loser.route.meta.name,
                rank_text(loser),
                rule_text(*rule, &winner, loser)
            ));
        }
        if ranking.losers.len() > LISTED {
            steps.push(format!(
                "policy: {} more match and rank no better",
                ranking.losers.len() - LISTED
            ));
        }
        steps.extend(self.mismatches());
        steps
    }

    fn mismatches(&self) -> Option<String> {
        let mismatches = &self.source.ranking.mismatches;
        let why = |mismatch: &Mismatch<'_>| match (mismatch.source, mismatch.destination) {
            (true, true) => "source and destination",
            (true, false) => "source",
            _ => "destination",
        };
        let named = mismatches.iter().map(|m| format!("{} ({})", m.route.meta.name, why(m)));
        (!mismatches.is_empty()).then(|| format!("policy: not matching: {}", listed(named)))
    }

    fn no_policy(&self, all: usize) -> String {
        let mesh = self.vip.destination.mesh();
        if self.vip.destination.tag_service().is_none() {
            let named = &self.vip.destination;
            return format!("policy: no policy names {named}: it is reached directly");
        }
        if all == 0 {
            return format!(
                "policy: mesh {mesh} has no TrafficRoute, so the service is reached directly"
            );
        }
        let not = match all {
            1 => format!("the TrafficRoute of mesh {mesh} does not match"),
            _ => format!("none of the {all} TrafficRoutes of mesh {mesh} matches"),
        };
        let then = match self.route.decision {
            Decision::Reject => "connections are reset (no_route: deny)",
            Decision::Direct | Decision::Forward => {
                "the service is reached directly (no_route: direct)"
            }
        };
        let detail = self.mismatches().map_or(String::new(), |step| {
            step.replacen("policy: not matching", "; not matching", 1)
        });
        format!("policy: {not}: {then}{detail}")
    }

    /// What `*` and the outbound make of an entry of a split.
    pub(super) fn wildcards(&self, entry: &SplitEntry) -> Option<String> {
        let changes = self.substitutions(entry);
        (!changes.is_empty()).then(|| format!("{}: {}", entry.field, changes.join(", ")))
    }

    fn substitutions(&self, entry: &SplitEntry) -> Vec<String> {
        let outbound = &self.source.outbound;
        let replaced =
            entry.destination.iter().filter(|(_, value)| *value == ANY).map(|(key, _)| {
                match outbound.get(key) {
                    Some(value) if key == SERVICE_TAG => {
                        format!("{key}=* is the service called, {value}")
                    }
                    Some(value) => format!("{key}=* is {value}, as the outbound says"),
                    None => format!("{key}=* asks for nothing, as the outbound does not name it"),
                }
            });
        let added = outbound
            .iter()
            .filter(|(key, _)| !entry.destination.contains_key(*key) && *key != MESH_TAG)
            .map(|(key, value)| format!("{key}={value} comes from the outbound"));
        replaced.chain(added).collect()
    }

    fn table(&self, shares: &Shares) -> Option<String> {
        if self.route.decision == Decision::Reject {
            return None;
        }
        let hashed = if self.route.hashing.by_source {
            "a hash of the client's address"
        } else {
            "a hash of the connection's addresses and ports"
        };
        let how = match self.route.load_balancer {
            LoadBalancer::RoundRobin => "roundRobin: slots in turn, on each CPU".to_owned(),
            LoadBalancer::Random => "random: any slot".to_owned(),
            LoadBalancer::Maglev => format!("maglev: the slot is {hashed}"),
            LoadBalancer::RingHash { function, min_ring_size, max_ring_size } => {
                let function = match function {
                    HashFunction::XxHash => "XX_HASH",
                    HashFunction::MurmurHash2 => "MURMUR_HASH_2",
                };
                format!(
                    "ringHash ({function}, {min_ring_size} to {max_ring_size} points): the slot \
                     is {hashed}"
                )
            }
            LoadBalancer::LeastRequest { choice_count } => format!(
                "leastRequest: a random slot fixes the backend, and of {choice_count} samples in \
                 it the real with the fewest live connections is taken"
            ),
        };
        let traffic_route = self.source.traffic_route();
        let default = traffic_route.is_some_and(|route| route.conf.load_balancer.is_none())
            && self.source.strategies.winner.is_none();
        let default = if default { " (the policy names no load balancer)" } else { "" };
        Some(match &shares.slots {
            Some((all, _)) => format!("table: {all} slots, {how}{default}"),
            None => format!("table: {how}{default}"),
        })
    }

    fn class(&self) -> Option<String> {
        Some(match self.source.class? {
            0 if self.source.dataplane.is_some() => {
                "class 0: routed like an address that no Dataplane has".to_owned()
            }
            0 => "class 0: every address that no Dataplane has".to_owned(),
            class => {
                let members = self.input.resolved.classes[class].sources.len();
                format!("class {class}: addresses with the same routes, {members} in all")
            }
        })
    }
}

/// Why an address that is no VIP is left alone.
pub(super) fn no_vip(input: &Input<'_>, addr: SocketAddr) -> Vec<String> {
    let mut steps = vec![format!("destination: {addr} is no VIP; balancer leaves it alone")];
    let vips = input.resolved.vips.iter().filter(|vip| vip.key.addr.ip() == addr.ip());
    let ports: Vec<String> = vips
        .map(|vip| {
            let protocol = vip.key.protocol;
            let suffix = if protocol == VipProtocol::Tcp { "" } else { " of UDP" };
            format!("{}{suffix} ({})", vip.key.addr.port(), plain(&vip.destination))
        })
        .collect();
    if !ports.is_empty() {
        steps.push(format!("destination: the address is a VIP at port {}", listed(ports)));
    }
    if input.resolved.inventory.binary_search(&addr).is_ok() {
        steps.push("destination: it is a real, reached without any policy".to_owned());
    }
    steps
}

fn rank_text(candidate: &Candidate<'_>) -> String {
    let rank = candidate.rank();
    format!("{}, {} exact", counted(rank.total() as usize, "tag", "tags"), rank.exact)
}

fn rule_text(rule: Rule, winner: &Candidate<'_>, loser: &Candidate<'_>) -> String {
    let created = |route: &TrafficRoute| match route.meta.created {
        Some(seconds) => format!("{seconds}"),
        None => "unknown".to_owned(),
    };
    match rule {
        Rule::MoreTags => "more tags count first".to_owned(),
        Rule::MoreExactTags => "as many tags, more of them exact".to_owned(),
        Rule::CreatedLater => format!(
            "equal rank, created later ({} against {}, in seconds since 1970)",
            created(winner.route),
            created(loser.route)
        ),
        Rule::SmallerName => "equal rank and creation time, smaller name".to_owned(),
    }
}

/// "service redis", "MeshService backend:80".
fn plain(destination: &Destination) -> String {
    destination.called().replace('`', "")
}

/// The same with its mesh, if it is in one.
fn named(destination: &Destination) -> String {
    match destination.mesh() {
        "" => plain(destination),
        mesh => format!("{} in mesh {mesh}", plain(destination)),
    }
}

pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(super) fn listed(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    match names.len().checked_sub(LISTED) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..LISTED].join(", ")),
        _ => names.join(", "),
    }
}
