//! The rules of one route, ready to be asked, with what they lead to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use balancer_ebpf::abi::REAL_FIRST;

use crate::{
    compile::{TableSize, table},
    http::{BackendId, BadRule, Readiness, Router},
    policy::LoadBalancer,
    resolve::{Backend, BackendState, Hashing, HttpRules, Route, inventory::Protocol},
};

/// The HTTP rules of one route.
#[derive(Debug)]
pub struct Ruled {
    http: Arc<HttpRules>,
    router: Arc<Router>,
    load_balancer: LoadBalancer,
    hashing: Hashing,
    /// By the number of the backend.
    targets: Vec<Target>,
}

/// What requests to one backend are spread over.
#[derive(Debug)]
struct Target {
    /// The next in turn.
    turn: AtomicUsize,
    /// Ordinals of reals by slot, where a hash chooses. Made when it is first asked.
    slots: OnceLock<Arc<[u16]>>,
}

/// What is spoken with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, known beforehand (RFC 9113, 3.3).
    Http2,
}

impl Ruled {
    /// `before`: rules of the same clients and VIP, from which is taken what is still true.
    ///
    /// # Errors
    /// The rules contradict themselves.
    pub(super) fn new(
        http: &Arc<HttpRules>,
        route: &Route,
        before: Option<&Self>,
    ) -> Result<Self, BadRule> {
        let router = match before {
            Some(before) if *before.router.rules() == *http.rules => Arc::clone(&before.router),
            _ => Arc::new(Router::new(Arc::clone(&http.rules))?),
        };
        let target = |_: &Backend| Target { turn: AtomicUsize::new(0), slots: OnceLock::new() };
        Ok(Self {
            targets: http.backends.iter().map(target).collect(),
            http: Arc::clone(http),
            router,
            load_balancer: route.load_balancer,
            hashing: route.hashing,
        })
    }

    /// Whether these are the rules of a route.
    pub(super) fn is_of(&self, http: &Arc<HttpRules>, route: &Route) -> bool {
        (self.load_balancer, self.hashing) == (route.load_balancer, route.hashing)
            && (Arc::ptr_eq(&self.http, http) || self.http == *http)
    }

    /// What finds the rule of a request.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Whether a backend can take a request.
    pub fn readiness(&self, id: BackendId) -> Readiness {
        self.http.readiness(id)
    }

    /// The name that an endpoint outside the mesh expects as host.
    pub fn outside_name(&self, real: SocketAddr) -> Option<&str> {
        self.http.outside_names.get(&real).map(String::as_str)
    }

    /// What is spoken with a backend; `call`: the request is one of gRPC, which needs HTTP/2 where
    /// nothing is known of the backend.
    pub fn spoken(&self, id: BackendId, call: bool) -> Spoken {
        match self.http.protocols.get(id.0 as usize) {
            Some(Protocol::Http2 | Protocol::Grpc) => Spoken::Http2,
            Some(Protocol::Http) => Spoken::Http1,
            _ if call => Spoken::Http2,
            _ => Spoken::Http1,
        }
    }

    /// An endpoint of a backend; `None`: it has none.
    ///
    /// `key` goes before chance where the load balancer goes by a hash. `number` is random.
    /// `live`: how many requests an endpoint has.
    pub fn real(
        &self,
        id: BackendId,
        key: Option<u64>,
        number: u64,
        live: impl Fn(SocketAddr) -> u32,
    ) -> Option<SocketAddr> {
        let at = id.0 as usize;
        let backend = self.http.backends.get(at).filter(|b| b.state == BackendState::Ok)?;
        let (reals, target) = (&backend.reals[..], self.targets.get(at)?);
        let random = |number: u64| reals[part(number, reals.len())];
        Some(match (reals, self.load_balancer, key) {
            ([], ..) => return None,
            ([only], ..) => *only,
            (_, LoadBalancer::Maglev | LoadBalancer::RingHash { .. }, Some(key)) => {
                let slots = target.slots.get_or_init(|| self.slots(backend));
                match slots.get(part(key, slots.len())) {
                    Some(ordinal) => reals[usize::from(*ordinal)],
                    None => random(key),
                }
            }
            // As Envoy does: without a hash, any.
            (_, LoadBalancer::Maglev | LoadBalancer::RingHash { .. }, None) => random(number),
            (_, LoadBalancer::Random, _) => random(number),
            (_, LoadBalancer::RoundRobin, _) => {
                reals[target.turn.fetch_add(1, Ordering::Relaxed) % reals.len()]
            }
            (_, LoadBalancer::LeastRequest { choice_count }, _) => {
                let mut drawn = number;
                let mut samples = (0..choice_count.max(2)).map(|_| {
                    drawn = mixed(drawn);
                    random(drawn)
                });
                let first = samples.next()?;
                let least = |a: SocketAddr, b: SocketAddr| if live(b) < live(a) { b } else { a };
                samples.fold(first, least)
            }
        })
    }

    /// The table that connections would have, of this backend alone.
    fn slots(&self, backend: &Backend) -> Arc<[u16]> {
        let route = Route {
            policy: None,
            decision: crate::resolve::Decision::Forward,
            load_balancer: self.load_balancer,
            hashing: self.hashing,
            backends: vec![Backend { weight: 1, ..backend.clone() }],
            http: None,
        };
        let size = self.hashing.slots.and_then(|slots| TableSize::new(slots).ok());
        // Without a table, as for more endpoints than one can name, a part of the list serves.
        table(&route, |_| REAL_FIRST, size).map_or_else(|_| Arc::from([]), |table| table.slots)
    }
}

/// The place in a list of `len` that a number falls on, each as likely.
fn part(number: u64, len: usize) -> usize {
    ((u128::from(number) * len as u128) >> 64) as usize
}

/// Another number of one (Steele et al., "Fast splittable pseudorandom number generators", 2014).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
