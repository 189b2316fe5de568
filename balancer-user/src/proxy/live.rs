//! What is live: whose requests to which VIP go by which rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::ruled::Ruled;
use crate::{
    http::BadRule,
    resolve::{Resolved, VipProtocol},
};

/// All rules that are live. Made anew with every epoch; what is as before is shared with the one
/// before it.
#[derive(Debug, Default)]
pub struct Live {
    vips: BTreeMap<SocketAddr, OfVip>,
    /// Classes of those sources that are routed otherwise than everybody else.
    classes: BTreeMap<IpAddr, usize>,
}

/// The rules of one VIP. `None`: connections go by no HTTP rules.
#[derive(Clone, Debug)]
struct OfVip {
    /// Of class 0 and of every class that is not in `classes`.
    any: Option<Held>,
    classes: BTreeMap<usize, Option<Held>>,
}

/// Rules, and whether they are those of this epoch.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) rules: Arc<Ruled>,
    /// They were those of the epoch before, and no others have taken their place: connections that
    /// came with it are served by them, and end.
    pub(super) leave: bool,
}

impl Held {
    /// For one more epoch, without which connections that come right now would find nothing.
    fn leaving(held: &Self) -> Option<Self> {
        (!held.leave).then(|| Self { leave: true, ..held.clone() })
    }
}

impl OfVip {
    fn is_empty(&self) -> bool {
        self.any.is_none() && self.classes.values().all(Option::is_none)
    }

    /// What is left of it where the VIP has no HTTP rules any more.
    fn leaving(&self) -> Self {
        let leaving = |held: &Option<Held>| held.as_ref().and_then(Held::leaving);
        let classes = self.classes.iter().map(|(class, held)| (*class, leaving(held)));
        Self { any: leaving(&self.any), classes: classes.collect() }
    }
}

impl Live {
    /// The HTTP rules of a resolved set, where those of `before` are the live ones.
    ///
    /// # Errors
    /// Rules that contradict themselves; validation of policies lets none through.
    pub fn new(resolved: &Resolved, before: &Self) -> Result<Self, BadRule> {
        let mut made: BTreeMap<usize, Arc<Ruled>> = BTreeMap::new();
        let mut make = |number: usize, old: Option<&Held>| {
            let route = &resolved.routes[number];
            let Some(http) = &route.http else { return Ok(old.and_then(Held::leaving)) };
            let rules = match (made.get(&number), old) {
                (Some(rules), _) => Arc::clone(rules),
                (None, Some(old)) if old.rules.is_of(http, route) => Arc::clone(&old.rules),
                (None, old) => {
                    Arc::new(Ruled::new(http, route, old.map(|old| old.rules.as_ref()))?)
                }
            };
            made.insert(number, Arc::clone(&rules));
            Ok(Some(Held { rules, leave: false }))
        };
        let mut vips = BTreeMap::new();
        for vip in resolved.vips.iter().filter(|vip| vip.key.protocol == VipProtocol::Tcp) {
            let old = before.vips.get(&vip.key.addr);
            let mut routes = std::iter::once(&vip.route).chain(vip.class_routes.values());
            if old.is_none() && !routes.any(|route| resolved.routes[*route].http.is_some()) {
                continue;
            }
            let any = make(vip.route, old.and_then(|old| old.any.as_ref()))?;
            let mut classes = BTreeMap::new();
            for (class, route) in &vip.class_routes {
                let old = old.and_then(|old| old.classes.get(class)?.as_ref());
                classes.insert(*class, make(*route, old)?);
            }
            vips.insert(vip.key.addr, OfVip { any, classes });
        }
        for (vip, old) in &before.vips {
            vips.entry(*vip).or_insert_with(|| old.leaving());
        }
        vips.retain(|_, of| !of.is_empty());
        let own: BTreeSet<usize> =
            vips.values().flat_map(|of| of.classes.keys().copied()).collect();
        let sources = resolved.sources.iter().filter(|source| own.contains(&source.class));
        let classes = sources.map(|source| (source.address, source.class)).collect();
        Ok(Self { vips, classes })
    }

    /// The rules for what a client sends to an address that it dialled; `None`: there are none.
    pub fn rules(&self, client: IpAddr, dialled: SocketAddr) -> Option<&Arc<Ruled>> {
        self.held(client, dialled).map(|held| &held.rules)
    }

    pub(super) fn held(&self, client: IpAddr, dialled: SocketAddr) -> Option<&Held> {
        let vip = self.vips.get(&dialled)?;
        if vip.classes.is_empty() {
            return vip.any.as_ref();
        }
        let class = self.classes.get(&client);
        match class.and_then(|class| vip.classes.get(class)) {
            Some(own) => own.as_ref(),
            None => vip.any.as_ref(),
        }
    }
}
