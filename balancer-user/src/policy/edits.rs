//! What differs between two sets of policies.

use std::sync::Arc;

use super::{Dataplane, MeshTcpRoute, TrafficRoute, kubernetes::EndpointSlice};

/// What differs between a set and the one before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Edits {
    /// Anything may differ.
    Whole,
    /// Only these. Resources that are equal, positions included, are not among them.
    Some(Vec<Edit>),
}

/// A resource that differs: as it was and as it is, each with the same identity. One of the two is
/// there at least.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// A Dataplane.
    Dataplane {
        /// As it was.
        before: Option<Arc<Dataplane>>,
        /// As it is.
        after: Option<Arc<Dataplane>>,
    },
    /// A TrafficRoute that is applied.
    TrafficRoute {
        /// As it was.
        before: Option<Arc<TrafficRoute>>,
        /// As it is.
        after: Option<Arc<TrafficRoute>>,
    },
    /// A MeshTCPRoute that is applied.
    MeshTcpRoute {
        /// As it was.
        before: Option<Arc<MeshTcpRoute>>,
        /// As it is.
        after: Option<Arc<MeshTcpRoute>>,
    },
    /// An EndpointSlice.
    EndpointSlice {
        /// As it was.
        before: Option<Arc<EndpointSlice>>,
        /// As it is.
        after: Option<Arc<EndpointSlice>>,
    },
}
