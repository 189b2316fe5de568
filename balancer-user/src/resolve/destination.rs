//! What a VIP stands for, and what a backend of a route names.

use std::{fmt, num::NonZeroU16, sync::Arc};

use super::VipProtocol;
use crate::policy::ServiceKind;

/// Something that connections can be opened to. Its text is what people type and read: `redis`,
/// `backend.shop:6379`, `edge.shop/redis`, `dns.kube-system:53/udp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A value of the tag `kuma.io/service`.
    Tags {
        /// The mesh.
        mesh: Arc<str>,
        /// The value.
        service: Arc<str>,
    },
    /// A port of an object that stands for a service.
    Port {
        /// Its mesh.
        mesh: Arc<str>,
        /// Its kind.
        kind: ServiceKind,
        /// Its internal name.
        name: Arc<str>,
        /// The port that clients dial.
        port: NonZeroU16,
    },
    /// A port of a Service of Kubernetes.
    Service {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// The port that clients dial.
        port: NonZeroU16,
        /// What they dial it with.
        protocol: VipProtocol,
    },
    /// What a reference names and nothing is: there is no such object, or it has no such port.
    Missing {
        /// The mesh.
        mesh: Arc<str>,
        /// The kind that the reference names.
        kind: ServiceKind,
        /// The reference, as people read it.
        reference: Arc<str>,
    },
    /// A listener of a Gateway.
    Listener {
        /// The Gateway's namespace.
        namespace: Arc<str>,
        /// The Gateway.
        gateway: Arc<str>,
        /// The listener.
        listener: Arc<str>,
    },
}

/// What kind of thing has a destination's name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum DestinationKind {
    /// A value of the tag `kuma.io/service`.
    Tags,
    /// A MeshService.
    MeshService,
    /// A MeshExternalService.
    MeshExternalService,
    /// A MeshMultiZoneService.
    MeshMultiZoneService,
    /// A Service of Kubernetes.
    Service,
    /// A Gateway.
    Gateway,
}

impl DestinationKind {
    /// As policies write it; of tags, that they are some.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tags => "Tags",
            Self::MeshService => "MeshService",
            Self::MeshExternalService => "MeshExternalService",
            Self::MeshMultiZoneService => "MeshMultiZoneService",
            Self::Service => "Service",
            Self::Gateway => "Gateway",
        }
    }
}

impl From<ServiceKind> for DestinationKind {
    fn from(kind: ServiceKind) -> Self {
        match kind {
            ServiceKind::MeshService => Self::MeshService,
            ServiceKind::MeshExternalService => Self::MeshExternalService,
            ServiceKind::MeshMultiZoneService => Self::MeshMultiZoneService,
        }
    }
}

impl Destination {
    /// A service by its tag.
    pub fn tags(mesh: &str, service: &str) -> Self {
        Self::Tags { mesh: mesh.into(), service: service.into() }
    }

    /// A port of an object that stands for a service.
    pub fn port(mesh: &str, kind: ServiceKind, name: &str, port: NonZeroU16) -> Self {
        Self::Port { mesh: mesh.into(), kind, name: name.into(), port }
    }

    /// A TCP port of a Service of Kubernetes.
    pub fn service(namespace: &str, name: &str, port: NonZeroU16) -> Self {
        Self::service_port(namespace, name, port, VipProtocol::Tcp)
    }

    /// A port of a Service of Kubernetes.
    pub fn service_port(
        namespace: &str,
        name: &str,
        port: NonZeroU16,
        protocol: VipProtocol,
    ) -> Self {
        Self::Service { namespace: namespace.into(), name: name.into(), port, protocol }
    }

    /// A listener of a Gateway.
    pub fn listener(namespace: &str, gateway: &str, listener: &str) -> Self {
        Self::Listener {
            namespace: namespace.into(),
            gateway: gateway.into(),
            listener: listener.into(),
        }
    }

    /// Its mesh; empty for what is in none.
    pub fn mesh(&self) -> &str {
        match self {
            Self::Tags { mesh, .. } | Self::Port { mesh, .. } | Self::Missing { mesh, .. } => mesh,
            Self::Service { .. } | Self::Listener { .. } => "",
        }
    }

    /// The value of `kuma.io/service` that it is.
    pub fn tag_service(&self) -> Option<&str> {
        match self {
            Self::Tags { service, .. } => Some(service),
            Self::Port { .. }
            | Self::Missing { .. }
            | Self::Service { .. }
            | Self::Listener { .. } => None,
        }
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> DestinationKind {
        match self {
            Self::Tags { .. } => DestinationKind::Tags,
            Self::Port { kind, .. } | Self::Missing { kind, .. } => (*kind).into(),
            Self::Service { .. } => DestinationKind::Service,
            Self::Listener { .. } => DestinationKind::Gateway,
        }
    }

    /// The kind where it has to be said: `None` for a service by its tag.
    pub fn object_kind(&self) -> Option<DestinationKind> {
        Some(self.kind()).filter(|kind| *kind != DestinationKind::Tags)
    }

    /// What it is called in a sentence: "service `redis`", "MeshService `backend.shop:6379`".
    pub fn called(&self) -> String {
        match self {
            Self::Tags { .. } => format!("service `{self}`"),
            Self::Port { .. } | Self::Missing { .. } | Self::Service { .. } => {
                format!("{} `{self}`", self.kind().name())
            }
            Self::Listener { .. } => format!("listener `{self}`"),
        }
    }

    /// The same with its mesh, if it is in one.
    pub fn called_in_mesh(&self) -> String {
        match self.mesh() {
            "" => self.called(),
            mesh => format!("{} of mesh {mesh}", self.called()),
        }
    }

    /// The port that its name ends with; a tag's value may name one in other ways too.
    pub fn own_port(&self) -> Option<NonZeroU16> {
        match self {
            Self::Port { port, .. } | Self::Service { port, .. } => Some(*port),
            Self::Tags { .. } | Self::Missing { .. } | Self::Listener { .. } => None,
        }
    }

    /// Whose address it is dialled at: itself without its port.
    pub fn owner(&self) -> VipOwner {
        let (mesh, name) = match self {
            Self::Tags { mesh, service } => (mesh.clone(), service.clone()),
            Self::Port { mesh, name, .. } => (mesh.clone(), name.clone()),
            Self::Missing { mesh, reference, .. } => (mesh.clone(), reference.clone()),
            Self::Service { namespace, name, .. } => {
                ("".into(), format!("{name}.{namespace}").into())
            }
            Self::Listener { namespace, gateway, .. } => {
                ("".into(), format!("{gateway}.{namespace}").into())
            }
        };
        VipOwner { mesh, kind: self.kind(), name }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tags { service, .. } => formatter.write_str(service),
            Self::Port { name, port, .. } => write!(formatter, "{name}:{port}"),
            Self::Missing { reference, .. } => formatter.write_str(reference),
            Self::Service { namespace, name, port, protocol } => {
                write!(formatter, "{name}.{namespace}:{port}{}", protocol.suffix())
            }
            Self::Listener { namespace, gateway, listener } => {
                write!(formatter, "{gateway}.{namespace}/{listener}")
            }
        }
    }
}

/// What an address is allocated for: a destination without its port. All ports of one object
/// are dialled at one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipOwner {
    /// Its mesh; empty for what is in none.
    pub mesh: Arc<str>,
    /// What kind of thing it is.
    pub kind: DestinationKind,
    /// Its name, with `.NAMESPACE` for what is in no mesh.
    pub name: Arc<str>,
}

impl VipOwner {
    /// A service by its tag.
    pub fn tags(mesh: &str, service: &str) -> Self {
        Self { mesh: mesh.into(), kind: DestinationKind::Tags, name: service.into() }
    }
}

impl fmt::Display for VipOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mesh, kind, name } = self;
        match kind {
            DestinationKind::Tags => write!(formatter, "service `{name}`")?,
            _ => write!(formatter, "{} `{name}`", kind.name())?,
        }
        if mesh.is_empty() { Ok(()) } else { write!(formatter, " of mesh {mesh}") }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::{Destination, VipOwner, VipProtocol};
    use crate::policy::ServiceKind;

    fn port(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn text_is_what_people_type() {
        let mesh_service = ServiceKind::MeshService;
        let texts = [
            (Destination::tags("m", "redis"), "redis", "service `redis` of mesh m"),
            (
                Destination::port("m", mesh_service, "backend.shop", port(6379)),
                "backend.shop:6379",
                "MeshService `backend.shop` of mesh m",
            ),
            (Destination::service("shop", "echo", port(80)), "echo.shop:80", "Service `echo.shop`"),
            (
                Destination::service_port("shop", "dns", port(53), VipProtocol::Udp),
                "dns.shop:53/udp",
                "Service `dns.shop`",
            ),
            (
                Destination::listener("shop", "edge", "redis"),
                "edge.shop/redis",
                "Gateway `edge.shop`",
            ),
        ];
        for (destination, text, owner) in texts {
            assert_eq!(destination.to_string(), text);
            assert_eq!(destination.owner().to_string(), owner);
        }
    }

    #[test]
    fn ports_of_one_object_share_an_address_and_kinds_do_not() {
        let of = |kind, number| Destination::port("m", kind, "redis", port(number)).owner();
        assert_eq!(of(ServiceKind::MeshService, 1), of(ServiceKind::MeshService, 2));
        assert_ne!(of(ServiceKind::MeshService, 1), of(ServiceKind::MeshExternalService, 1));
        assert_ne!(of(ServiceKind::MeshService, 1), VipOwner::tags("m", "redis"));
    }
}
