//! Resources whatever their kind: each that is valid by itself, and the list that it goes into.

use std::{cmp::Ordering, sync::Arc};

use super::{
    Dataplane, ExternalService, List, Mesh, MeshExternalService, MeshHttpRoute,
    MeshLoadBalancingStrategy, MeshMultiZoneService, MeshService, MeshTcpRoute, Meta, PolicySet,
    TrafficRoute,
    gateway::{Gateway, GatewayClass, GrpcRoute, HttpRoute, ReferenceGrant, TcpRoute},
    kubernetes::{EndpointSlice, Namespace, Service},
    tag_map::Shared,
};

impl Object {
    /// Shares what many resources have in common. This one is nobody else's yet.
    pub(super) fn share(&mut self, shared: &mut Shared) {
        if let Self::Dataplane(dataplane) = self
            && let Some(dataplane) = Arc::get_mut(dataplane)
        {
            for inbound in &mut dataplane.inbounds {
                shared.share(&mut inbound.tags);
            }
        }
    }
}

/// Names that are unique in a set: the kind, what the name is unique in, and the name.
pub(super) type Identity<'a> = (&'static str, &'a str, &'a str);

/// Who it is.
pub(super) fn identity(meta: &Meta) -> Identity<'_> {
    (meta.kind, meta.scope(), &meta.name)
}

fn by_name(meta: &Meta, (_, scope, name): Identity<'_>) -> Ordering {
    (meta.scope(), meta.name.as_str()).cmp(&(scope, name))
}

fn find<T>(
    list: &List<T>,
    meta: impl Fn(&T) -> &Meta,
    identity: Identity<'_>,
) -> Result<usize, usize> {
    list.binary_search_by(|one| by_name(meta(one), identity))
}

macro_rules! objects {
    ($($variant:ident($type:ty) of $kind:literal in $list:ident;)*) => {
        /// A resource that is valid by itself. One variant for each list of a set.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Object {
            $($variant(Arc<$type>),)*
        }

        impl Object {
            /// Its names, and its list: no two lists of one kind have the same.
            pub(super) fn key(&self) -> (Identity<'_>, &'static str) {
                let list = match self {
                    $(Self::$variant(_) => stringify!($list),)*
                };
                (identity(self.meta()), list)
            }

            pub(super) fn meta(&self) -> &Meta {
                match self {
                    $(Self::$variant(one) => &one.meta,)*
                }
            }

            /// Puts it into its list, in the place of one of the same identity.
            pub(super) fn put(&self, set: &mut PolicySet) {
                match self {
                    $(Self::$variant(one) => {
                        match find(&set.$list, |one| &one.meta, identity(&one.meta)) {
                            Ok(at) => drop(set.$list.set(at, Arc::clone(one))),
                            Err(at) => set.$list.insert(at, Arc::clone(one)),
                        }
                    })*
                }
            }

            /// Takes the one of this identity out of its list.
            pub(super) fn take(&self, set: &mut PolicySet) {
                match self {
                    $(Self::$variant(one) => {
                        let at = find(&set.$list, |one| &one.meta, identity(&one.meta));
                        if let Ok(at) = at {
                            set.$list.remove(at);
                        }
                    })*
                }
            }
        }

        /// The resources of a set, in the making.
        #[derive(Default)]
        pub(super) struct Lists {
            $($list: Vec<Arc<$type>>,)*
        }

        impl Lists {
            /// Adds one that comes after all others of its list in the order of their names.
            pub(super) fn push(&mut self, object: &Object) {
                match object {
                    $(Object::$variant(one) => self.$list.push(Arc::clone(one)),)*
                }
            }

            /// Into a set that has these texts.
            pub(super) fn put(self, set: &mut PolicySet) {
                $(set.$list = self.$list.into();)*
            }
        }

        /// Of every resource of a set, kind by kind.
        pub(super) fn metas(set: &PolicySet) -> impl Iterator<Item = &Meta> {
            std::iter::empty()$(.chain(set.$list.iter().map(|one| &one.meta)))*
        }

        /// Whether a set has a resource of this identity.
        pub(super) fn has(set: &PolicySet, identity: Identity<'_>) -> bool {
            $((identity.0 == $kind && find(&set.$list, |one| &one.meta, identity).is_ok()))||*
        }

        #[cfg(test)]
        const KINDS: &[&str] = &[$($kind,)*];
    };
}

objects! {
    Mesh(Mesh) of "Mesh" in meshes;
    Dataplane(Dataplane) of "Dataplane" in dataplanes;
    TrafficRoute(TrafficRoute) of "TrafficRoute" in traffic_routes;
    ShadowedTrafficRoute(TrafficRoute) of "TrafficRoute" in shadowed;
    MeshTcpRoute(MeshTcpRoute) of "MeshTCPRoute" in mesh_tcp_routes;
    ShadowedMeshTcpRoute(MeshTcpRoute) of "MeshTCPRoute" in shadowed_mesh_tcp_routes;
    MeshHttpRoute(MeshHttpRoute) of "MeshHTTPRoute" in mesh_http_routes;
    ShadowedMeshHttpRoute(MeshHttpRoute) of "MeshHTTPRoute" in shadowed_mesh_http_routes;
    MeshLoadBalancingStrategy(MeshLoadBalancingStrategy) of "MeshLoadBalancingStrategy" in mesh_load_balancing_strategies;
    ShadowedMeshLoadBalancingStrategy(MeshLoadBalancingStrategy) of "MeshLoadBalancingStrategy" in shadowed_mesh_load_balancing_strategies;
    MeshService(MeshService) of "MeshService" in mesh_services;
    MeshExternalService(MeshExternalService) of "MeshExternalService" in mesh_external_services;
    MeshMultiZoneService(MeshMultiZoneService) of "MeshMultiZoneService" in mesh_multi_zone_services;
    ExternalService(ExternalService) of "ExternalService" in external_services;
    Service(Service) of "Service" in services;
    EndpointSlice(EndpointSlice) of "EndpointSlice" in endpoint_slices;
    Namespace(Namespace) of "Namespace" in namespaces;
    GatewayClass(GatewayClass) of "GatewayClass" in gateway_classes;
    Gateway(Gateway) of "Gateway" in gateways;
    TcpRoute(TcpRoute) of "TCPRoute" in tcp_routes;
    HttpRoute(HttpRoute) of "HTTPRoute" in http_routes;
    GrpcRoute(GrpcRoute) of "GRPCRoute" in grpc_routes;
    ReferenceGrant(ReferenceGrant) of "ReferenceGrant" in reference_grants;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{mesh_kinds::MeshKind, object::ObjectKind};

    #[test]
    fn every_kind_that_is_read_has_a_list() {
        let kuma = MeshKind::ALL.into_iter().map(MeshKind::name);
        let objects = ObjectKind::ALL.into_iter().map(ObjectKind::name);
        for kind in ["Mesh", "Dataplane", "TrafficRoute"].into_iter().chain(kuma).chain(objects) {
            assert!(KINDS.contains(&kind), "{kind}");
        }
    }
}
