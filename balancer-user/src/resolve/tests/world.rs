//! Small worlds, written as a person would say them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    policy::{
        self, Dataplane, Documents, Host, HttpEntry, HttpMatch, HttpModify, Inbound, LoadBalancer,
        Mesh, Meta, Outbound, PolicySet, ReadOptions, SourceText, Span, SplitEntry, Tags, Texts,
        TrafficRoute, TrafficRouteConf,
    },
    resolve::{
        GATEWAY_CONTROLLER, Names, NoRoute, ResolveSettings, Resolved, Route, Vip, VipAssignments,
    },
};

/// Settings as they are without a configuration file.
pub(crate) fn settings() -> ResolveSettings {
    ResolveSettings {
        vips4: ("240.0.0.0".parse().unwrap(), 8),
        vips6: ("fd62:616c::".parse().unwrap(), 64),
        zone: None,
        no_route: NoRoute::Direct,
        gateway_controller: GATEWAY_CONTROLLER.to_owned(),
        allow_plain: false,
        protocols: Vec::new(),
        names: Names::default(),
        assigned: VipAssignments::new(),
    }
}

/// `k=v,k=v`; `service`, `protocol` and `zone` stand for the tags of that name below
/// `kuma.io/`.
pub(crate) fn tags(text: &str) -> Tags {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            let key = match key {
                "service" | "protocol" | "zone" => format!("kuma.io/{key}"),
                other => other.to_owned(),
            };
            (key, value.to_owned())
        })
        .collect()
}

/// What documents say, which must be valid.
pub(crate) fn documents(body: &str) -> PolicySet {
    let text = SourceText { name: "world.yaml".to_owned(), text: body.into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    assert!(reading.report.valid(), "{:#?}", reading.report);
    reading.set
}

fn meta(kind: &'static str, name: &str) -> Meta {
    Meta {
        kind,
        mesh: "default".to_owned(),
        namespace: None,
        name: name.to_owned(),
        display_name: name.to_owned(),
        labels: Tags::new(),
        created: None,
        item: 0,
        span: line(1),
    }
}

fn line(line: u32) -> Span {
    Span { document: 0, line, column: 1, len: 1 }
}

/// A set with these resources.
pub(crate) fn set(dataplanes: Vec<Dataplane>, traffic_routes: Vec<TrafficRoute>) -> PolicySet {
    let text = SourceText { name: "world.yaml".to_owned(), text: "".into() };
    PolicySet {
        documents: Documents::whole(Texts::unit(text)),
        dataplanes: dataplanes.into_iter().map(Arc::new).collect(),
        traffic_routes: traffic_routes.into_iter().map(Arc::new).collect(),
        ..PolicySet::default()
    }
}

/// A Mesh with locality-aware load balancing.
pub(crate) fn locality_aware_mesh() -> Mesh {
    Mesh { meta: meta("Mesh", "default"), locality_aware: true }
}

/// A Dataplane without inbounds.
pub(crate) fn dataplane(name: &str, address: &str) -> Dataplane {
    let address = match address.parse() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(address.to_owned()),
    };
    Dataplane {
        meta: meta("Dataplane", name),
        address,
        advertised: None,
        inbounds: Vec::new(),
        gateway: None,
        outbounds: Vec::new(),
        referring: Vec::new(),
    }
}

impl Dataplane {
    /// Adds a ready inbound.
    pub(crate) fn inbound(mut self, port: u16, of: &str) -> Self {
        self.inbounds.push(Inbound {
            span: line(10 + self.inbounds.len() as u32),
            address: None,
            port: port.try_into().unwrap(),
            name: None,
            service_address: None,
            service_port: None,
            tags: tags(of),
            ready: true,
        });
        self
    }

    /// The last inbound is not ready.
    pub(crate) fn not_ready(mut self) -> Self {
        self.inbounds.last_mut().unwrap().ready = false;
        self
    }

    /// The last inbound has an address of its own.
    pub(crate) fn at(mut self, address: &str) -> Self {
        self.inbounds.last_mut().unwrap().address = Some(address.parse().unwrap());
        self
    }

    /// Adds an outbound.
    pub(crate) fn outbound(mut self, addr: &str, of: &str) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let index = self.outbounds.len() as u32;
        self.outbounds.push(Outbound {
            span: line(20 + index),
            index,
            address: addr.ip(),
            port: addr.port().try_into().unwrap(),
            tags: tags(of),
        });
        self
    }

    /// Moves it to a mesh.
    pub(crate) fn mesh(mut self, mesh: &str) -> Self {
        self.meta.mesh = mesh.to_owned();
        self
    }

    /// Sets the advertised address.
    pub(crate) fn advertised(mut self, address: &str) -> Self {
        self.advertised = Some(Host::Ip(address.parse().unwrap()));
        self
    }
}

/// A TrafficRoute without selectors and destinations.
pub(crate) fn route(name: &str) -> TrafficRoute {
    TrafficRoute {
        meta: meta("TrafficRoute", name),
        sources: Vec::new(),
        destinations: Vec::new(),
        conf: TrafficRouteConf {
            load_balancer: None,
            split: Vec::new(),
            http: Vec::new(),
            http_span: None,
        },
    }
}

impl TrafficRoute {
    /// Adds a source selector.
    pub(crate) fn from(mut self, selector: &str) -> Self {
        self.sources.push(tags(selector));
        self
    }

    /// Adds a destination.
    pub(crate) fn to(mut self, service: &str) -> Self {
        self.destinations.push(service.to_owned());
        self
    }

    /// Adds an entry to the split.
    pub(crate) fn split(mut self, weight: u32, destination: &str) -> Self {
        let index = self.conf.split.len();
        let field = format!("conf.split[{index}].destination");
        let destination = tags(destination);
        let span = line(30 + index as u32);
        self.conf.split.push(SplitEntry { span, field, weight, destination });
        self
    }

    /// Adds an http entry.
    pub(crate) fn http(mut self, has_match: bool, destination: &str) -> Self {
        let index = self.conf.http.len();
        let field = format!("conf.http[{index}].destination");
        let destination = tags(destination);
        let span = line(40 + index as u32);
        self.conf.http_span = Some(line(39));
        self.conf.http.push(HttpEntry {
            span,
            has_match,
            matches: HttpMatch::default(),
            modify: HttpModify::default(),
            split: vec![SplitEntry { span, field, weight: 1, destination }],
        });
        self
    }

    /// Sets the load balancer.
    pub(crate) fn balanced(mut self, by: LoadBalancer) -> Self {
        self.conf.load_balancer = Some(by);
        self
    }

    /// Sets the creation time.
    pub(crate) fn created(mut self, seconds: f64) -> Self {
        self.meta.created = Some(seconds);
        self
    }

    /// Moves it to a mesh.
    pub(crate) fn in_mesh(mut self, mesh: &str) -> Self {
        self.meta.mesh = mesh.to_owned();
        self
    }
}

impl Resolved {
    /// The VIPs of a service.
    pub(crate) fn vips_of(&self, service: &str) -> Vec<&Vip> {
        self.vips.iter().filter(|vip| vip.destination.to_string() == service).collect()
    }

    /// The route that a source has to the first VIP of a service.
    pub(crate) fn route_from(&self, source: &str, service: &str) -> &Route {
        self.route_at(source, self.vips_of(service)[0])
    }

    /// The route that a source has to a VIP.
    pub(crate) fn route_at(&self, source: &str, vip: &Vip) -> &Route {
        let address: IpAddr = source.parse().unwrap();
        let class = self.sources.iter().find(|s| s.address == address).map_or(0, |s| s.class);
        &self.routes[vip.class_routes.get(&class).copied().unwrap_or(vip.route)]
    }

    /// The name of the policy that routes a source to a service.
    pub(crate) fn policy_from(&self, source: &str, service: &str) -> Option<&str> {
        self.route_from(source, service).policy.as_ref().map(|policy| policy.name.as_str())
    }

    /// Messages of all findings.
    pub(crate) fn messages(&self) -> Vec<&str> {
        self.diagnostics.iter().map(|(_, found)| found.message.as_str()).collect()
    }
}

impl Route {
    /// Each backend as `WEIGHT SERVICE[,TAGS] STATE REALS`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.backends
            .iter()
            .map(|backend| {
                let reals: Vec<_> = backend.reals.iter().map(ToString::to_string).collect();
                let tags = super::super::tags_text(&backend.tags);
                let state = format!("{:?}", backend.state).to_lowercase();
                let comma = if tags.is_empty() { "" } else { "," };
                let reals = reals.join(" ");
                format!("{} {}{comma}{tags} {state} {reals}", backend.weight, backend.destination)
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }
}
