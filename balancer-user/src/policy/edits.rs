//! What differs between two sets of policies.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Dataplane, Host, MeshHttpRoute, MeshTcpRoute, Meta, TrafficRoute,
    gateway::{GrpcRoute, HttpRoute, TcpRoute},
    kubernetes::EndpointSlice,
    objects::{Identity, Object, identity},
};

/// What differs between a set and the one before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Edits {
    /// Anything may differ.
    Whole,
    /// Only these. Resources that are equal, positions in their documents
    /// included, are not among them.
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
    /// A MeshHTTPRoute that is applied.
    MeshHttpRoute {
        /// As it was.
        before: Option<Arc<MeshHttpRoute>>,
        /// As it is.
        after: Option<Arc<MeshHttpRoute>>,
    },
    /// An EndpointSlice.
    EndpointSlice {
        /// As it was.
        before: Option<Arc<EndpointSlice>>,
        /// As it is.
        after: Option<Arc<EndpointSlice>>,
    },
    /// An HTTPRoute.
    HttpRoute {
        /// As it was.
        before: Option<Arc<HttpRoute>>,
        /// As it is.
        after: Option<Arc<HttpRoute>>,
    },
    /// A GRPCRoute.
    GrpcRoute {
        /// As it was.
        before: Option<Arc<GrpcRoute>>,
        /// As it is.
        after: Option<Arc<GrpcRoute>>,
    },
    /// A TCPRoute.
    TcpRoute {
        /// As it was.
        before: Option<Arc<TcpRoute>>,
        /// As it is.
        after: Option<Arc<TcpRoute>>,
    },
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        impl Edit {
            /// `None`: a resource of another kind.
            pub(super) fn of(before: Option<&Object>, after: Option<&Object>) -> Option<Self> {
                match (before, after) {
                    $(
                        (Some(Object::$kind(_)) | None, Some(Object::$kind(_)))
                        | (Some(Object::$kind(_)), None) => {
                            let one = |object: Option<&Object>| match object {
                                Some(Object::$kind(one)) => Some(Arc::clone(one)),
                                _ => None,
                            };
                            Some(Self::$kind { before: one(before), after: one(after) })
                        }
                    )*
                    _ => None,
                }
            }

            fn meta(&self) -> Option<&Meta> {
                match self {
                    $(Self::$kind { before, after } => {
                        before.as_ref().or(after.as_ref()).map(|one| &one.meta)
                    })*
                }
            }

            /// This edit and then another one of the same resource. `None`: nothing differs.
            fn then(self, later: Self) -> Option<Self> {
                match (self, later) {
                    $((Self::$kind { before, .. }, Self::$kind { after, .. }) => {
                        (before != after).then_some(Self::$kind { before, after })
                    })*
                    (_, later) => Some(later),
                }
            }
        }
    };
}

kinds!(
    Dataplane,
    TrafficRoute,
    MeshTcpRoute,
    MeshHttpRoute,
    EndpointSlice,
    HttpRoute,
    GrpcRoute,
    TcpRoute
);

impl Edits {
    /// Nothing differs.
    pub const NONE: Self = Self::Some(Vec::new());

    /// Whether the names that the set gives in place of addresses are as they were.
    pub fn leave_names(&self) -> bool {
        let Self::Some(edits) = self else { return false };
        let is_name = |host: &Host| matches!(host, Host::Name(_));
        let dialled = |dataplane: &Arc<Dataplane>| {
            is_name(&dataplane.address) || dataplane.advertised.as_ref().is_some_and(is_name)
        };
        edits.iter().all(|edit| match edit {
            Edit::Dataplane { before, after } => !before.iter().chain(after).any(dialled),
            _ => true,
        })
    }

    /// What differs after these edits and later ones.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let (Self::Some(first), Self::Some(later)) = (self, later) else { return Self::Whole };
        if first.is_empty() {
            return Self::Some(later);
        }
        let mut edits: BTreeMap<(&'static str, String, String), Edit> = BTreeMap::new();
        for edit in first.into_iter().chain(later) {
            let Some(meta) = edit.meta() else { continue };
            let (kind, scope, name): Identity<'_> = identity(meta);
            let who = (kind, scope.to_owned(), name.to_owned());
            let both = match edits.remove(&who) {
                Some(before) => before.then(edit),
                None => Some(edit),
            };
            if let Some(both) = both {
                edits.insert(who, both);
            }
        }
        Self::Some(edits.into_values().collect())
    }
}
