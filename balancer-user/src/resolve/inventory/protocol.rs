//! What a service speaks (semantics 2.4).

/// What a service speaks (semantics 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque.
    Tcp,
    /// Kafka.
    Kafka,
    /// Not stated, or not one of these: handled as TCP.
    Unknown,
}

impl Protocol {
    /// The value of a `kuma.io/protocol` tag, in any case.
    pub fn parse(tag: Option<&str>) -> Self {
        match tag.map(str::to_ascii_lowercase).as_deref() {
            Some("http") => Self::Http,
            Some("http2") => Self::Http2,
            Some("grpc") => Self::Grpc,
            Some("tcp") => Self::Tcp,
            Some("kafka") => Self::Kafka,
            _ => Self::Unknown,
        }
    }

    /// What two endpoints of one service have in common.
    pub fn common(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Grpc, Self::Http2) | (Self::Http2, Self::Grpc) => Self::Http2,
            _ => Self::Tcp,
        }
    }

    /// Requests can be told apart.
    pub fn is_http_like(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// As written in tags; an unknown protocol is handled as `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Kafka => "kafka",
            Self::Tcp | Self::Unknown => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Inventory, Protocol};
    use crate::policy::Dataplane;
    use crate::resolve::tests::world::{dataplane, set, settings};

    #[test]
    fn protocols_have_in_common_what_the_table_says() {
        use Protocol::{Grpc, Http, Http2, Kafka, Tcp, Unknown};
        let table = [
            (Http, Http, Http),
            (Http, Unknown, Unknown),
            (Grpc, Http2, Http2),
            (Grpc, Http, Tcp),
            (Http2, Http, Tcp),
            (Http, Tcp, Tcp),
            (Kafka, Tcp, Tcp),
            (Kafka, Grpc, Tcp),
            (Kafka, Kafka, Kafka),
            (Tcp, Unknown, Unknown),
        ];
        for (a, b, common) in table {
            assert_eq!((a.common(b), b.common(a)), (common, common), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn protocol_tags_are_read_in_any_case() {
        assert_eq!(Protocol::parse(Some("HTTP2")), Protocol::Http2);
        assert_eq!(Protocol::parse(Some("gopher")), Protocol::Unknown);
        assert_eq!(Protocol::parse(None), Protocol::Unknown);
    }

    #[test]
    fn one_endpoint_without_the_tag_demotes_the_service() {
        let tagged = dataplane("a", "10.0.0.1").inbound(80, "service=web,protocol=http");
        let bare = dataplane("b", "10.0.0.2").inbound(80, "service=web");
        let protocol = |dataplanes: &[Dataplane]| {
            let set = set(dataplanes.to_vec(), Vec::new());
            Inventory::new(&set, &settings()).service("default", "web").unwrap().protocol()
        };
        assert_eq!(protocol(std::slice::from_ref(&tagged)), Protocol::Http);
        assert_eq!(protocol(&[tagged.clone(), bare.clone()]), Protocol::Unknown);
        assert_eq!(
            protocol(&[tagged, bare.not_ready()]),
            Protocol::Http,
            "an inbound that is not ready is no endpoint"
        );
    }
}
