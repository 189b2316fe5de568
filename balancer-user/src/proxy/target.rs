//! What a backend is asked for: path and host, as rules write them.

use std::net::SocketAddr;

use ::http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::{Authority, PathAndQuery},
};

use super::{Spoken, body::Upload, ruled::Ruled};
use crate::http::{self, Forward, HostOf};

/// Whether a target has a form that its method may have: an authority alone is for CONNECT, `*` for
/// OPTIONS (RFC 9112, 3.2).
pub(super) fn has_form(method: &Method, target: &Uri) -> bool {
    match (target.scheme(), target.authority()) {
        (None, Some(_)) => *method == Method::CONNECT,
        _ => target.path() != "*" || *method == Method::OPTIONS,
    }
}

/// The name that an endpoint has itself.
pub(super) fn own_name(rules: &Ruled, real: SocketAddr) -> Option<HeaderValue> {
    match rules.outside_name(real) {
        Some(name) => HeaderValue::from_str(name).ok(),
        None => HeaderValue::try_from(real.to_string()).ok(),
    }
}

/// What a backend is asked for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    path: PathAndQuery,
    /// `None`: that of the endpoint.
    pub(super) host: Option<HeaderValue>,
}

/// It cannot be written as a request.
#[derive(Debug)]
pub(super) struct Unwritable;

impl Target {
    /// What the rules make of a request.
    pub(super) fn of(
        forward: &Forward<'_>,
        view: &http::Request<'_>,
        uri: &Uri,
    ) -> Result<Self, Unwritable> {
        let as_it_came = forward.path.is_none()
            && forward.query.is_none()
            && matches!(view.path, std::borrow::Cow::Borrowed(_));
        let path = match uri.path_and_query() {
            Some(path) if as_it_came => path.clone(),
            _ => forward.path_and_query(view).parse().map_err(|_| Unwritable)?,
        };
        let as_it_came =
            view.headers.get(HOST).filter(|host| host.as_bytes() == view.authority.as_bytes());
        let host = match (&forward.host, as_it_came) {
            (HostOf::Request, Some(host)) => Some(host.clone()),
            _ => match forward.host(view) {
                Some(host) => Some(HeaderValue::from_str(host).map_err(|_| Unwritable)?),
                None => None,
            },
        };
        Ok(Self { path, host })
    }

    /// The same for a copy whose host says that it is one.
    pub(super) fn shadowed(&self, shadow: bool) -> Self {
        let mut named = self.clone();
        if shadow {
            let host = named.host.as_ref().and_then(|host| host.to_str().ok());
            named.host = host.and_then(|host| HeaderValue::try_from(http::shadow(host)).ok());
        }
        named
    }

    /// Writes it into a request. `own`: the endpoint's name.
    pub(super) fn write(
        &self,
        request: &mut Request<Upload>,
        spoken: Spoken,
        own: Option<&HeaderValue>,
    ) -> Result<(), Unwritable> {
        let host = self.host.as_ref().or(own);
        match spoken {
            Spoken::Http1 => {
                *request.version_mut() = Version::HTTP_11;
                *request.uri_mut() = Uri::from(self.path.clone());
                // One of HTTP/1.0 may have none; one of HTTP/1.1 has to (RFC 9112, 3.2).
                let host = host.cloned().unwrap_or(const { HeaderValue::from_static("") });
                request.headers_mut().insert(HOST, host);
                let chunked = request.body().is_of_unknown_length()
                    && !request.headers().contains_key(CONTENT_LENGTH);
                if chunked {
                    let chunked = const { HeaderValue::from_static("chunked") };
                    request.headers_mut().insert(TRANSFER_ENCODING, chunked);
                }
            }
            Spoken::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                let authority = host.filter(|host| !host.is_empty());
                let authority = authority.map(|host| Authority::try_from(host.as_bytes()));
                let mut uri = Uri::builder().scheme("http").path_and_query(self.path.clone());
                uri = match authority.transpose().map_err(|_| Unwritable)? {
                    Some(authority) => uri.authority(authority),
                    None => uri.authority("localhost"),
                };
                *request.uri_mut() = uri.build().map_err(|_| Unwritable)?;
            }
        }
        Ok(())
    }
}
