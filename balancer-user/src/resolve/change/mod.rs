//! One set after another: what a small change of the policies changes of what they resolve to.

use std::net::{IpAddr, SocketAddr};

/// What differs between two outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Anything may differ.
    Whole,
    /// VIPs, classes but for their members, class routes, and the number and order of routes are
    /// as they were. What may differ is named.
    Parts(Parts),
}

/// What may differ where most is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Routes (index into [`Resolved::routes`](super::Resolved::routes)) whose backends have other
    /// weights, states or reals; policies, decisions, load balancers and the backends' names are
    /// as they were. Sorted.
    pub routes: Vec<usize>,
    /// Sources that are new, sorted.
    pub sources_added: Vec<IpAddr>,
    /// Sources that are gone, sorted.
    pub sources_removed: Vec<IpAddr>,
    /// Endpoints that are new in the inventory, sorted.
    pub inventory_added: Vec<SocketAddr>,
    /// Endpoints that are gone from it, sorted.
    pub inventory_removed: Vec<SocketAddr>,
}
