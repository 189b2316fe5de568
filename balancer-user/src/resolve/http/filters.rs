//! Filters of MeshHTTPRoute, HTTPRoute and GRPCRoute (semantics 4.5, 5.5).

use ::http::StatusCode;

use super::changes::{Refused, header_changes, take};
use crate::{
    http::{
        Cors, Destination, Filter, Host, HostRewrite, Mirror, Origin, PathRewrite, PortElse,
        Redirect, Scheme, Share,
    },
    policy::http_route::{self as policy, HostChange, Located, PathModifier, RouteFilter},
};

/// Where two families of APIs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// MeshHTTPRoute.
    Mesh,
    /// HTTPRoute and GRPCRoute.
    Gateway,
}

/// What is done with requests, in written order. `mirror` says where copies go.
pub fn filters<B>(
    written: &[Located<RouteFilter<B>>],
    family: Family,
    refused: &mut Vec<Refused>,
    mut mirror: impl FnMut(&B) -> Destination,
) -> Vec<Filter> {
    let mut filters = Vec::with_capacity(written.len());
    for Located { field, value, .. } in written {
        match value {
            RouteFilter::RequestHeaders(modifier) => {
                let field = format!("{field}.requestHeaderModifier");
                filters.push(Filter::RequestHeaders(header_changes(modifier, &field, refused)));
            }
            RouteFilter::ResponseHeaders(modifier) => {
                let field = format!("{field}.responseHeaderModifier");
                filters.push(Filter::ResponseHeaders(header_changes(modifier, &field, refused)));
            }
            RouteFilter::Redirect(written) => {
                filters.push(Filter::Redirect(redirect(written, family, field, refused)));
            }
            RouteFilter::Rewrite(rewrite) => {
                filters.extend(host(rewrite, field, refused).map(Filter::Host));
                filters.extend(rewrite.path.as_ref().map(path).map(Filter::Path));
            }
            RouteFilter::Mirror(written) => filters.push(Filter::Mirror(Mirror {
                destination: mirror(&written.backend),
                share: share(written.share),
                shadow: family == Family::Mesh,
            })),
            RouteFilter::Cors(written) => filters.push(Filter::Cors(cors(written))),
            // To pass its requests without it could be wrong.
            RouteFilter::Unsupported(_) => {
                filters.push(Filter::Respond(StatusCode::INTERNAL_SERVER_ERROR));
            }
        }
    }
    filters
}

fn redirect(
    written: &policy::Redirect,
    family: Family,
    field: &str,
    refused: &mut Vec<Refused>,
) -> Redirect {
    let host = written.hostname.as_ref().and_then(|name| {
        take(refused, || format!("{field}.requestRedirect.hostname"), Host::new(name))
    });
    let status = take(
        refused,
        || format!("{field}.requestRedirect.statusCode"),
        StatusCode::from_u16(written.status),
    );
    Redirect {
        scheme: written.scheme.map(|scheme| match scheme {
            policy::Scheme::Http => Scheme::Http,
            policy::Scheme::Https => Scheme::Https,
        }),
        host,
        port: written.port.map(Into::into),
        port_else: match family {
            Family::Mesh => PortElse::Request,
            Family::Gateway => PortElse::Listener,
        },
        path: written.path.as_ref().map(path),
        status: status.unwrap_or(StatusCode::FOUND),
    }
}

fn host(
    rewrite: &policy::UrlRewrite,
    field: &str,
    refused: &mut Vec<Refused>,
) -> Option<HostRewrite> {
    match rewrite.host.as_ref()? {
        HostChange::To(name) => {
            let host = take(refused, || format!("{field}.urlRewrite.hostname"), Host::new(name));
            host.map(HostRewrite::Value)
        }
        HostChange::Backend => Some(HostRewrite::OfEndpoint),
    }
}

fn path(modifier: &PathModifier) -> PathRewrite {
    match modifier {
        PathModifier::Full(path) => PathRewrite::Full(path.as_str().into()),
        PathModifier::Prefix(prefix) => PathRewrite::Segments(prefix.as_str().into()),
    }
}

/// A number from 0 to 1, in billionths.
fn share(of_one: f64) -> Share {
    const WHOLE: u32 = 1_000_000_000;
    let parts = (of_one.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u64;
    Share::new(parts, u64::from(WHOLE)).unwrap_or(Share::ALL)
}

fn cors(written: &policy::Cors) -> Cors {
    Cors {
        origins: written.origins.iter().map(|origin| Origin::new(origin)).collect(),
        credentials: written.credentials,
        methods: written.methods.clone(),
        headers: written.headers.clone(),
        expose: written.exposed.clone(),
        max_age_seconds: written.max_age_seconds,
    }
}
