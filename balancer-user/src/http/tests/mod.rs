//! Requests and matches as tests write them, and what holds of whole rules.

use std::net::IpAddr;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header::HOST};

use super::{
    matcher::{HeaderMatch, QueryMatch, ValueMatch},
    pattern::Pattern,
    redirect::{PortElse, Redirect},
    request::{Connection, Request, Scheme},
};

mod decisions;
mod order;
pub(crate) mod properties;
mod why;

/// A request and what it is made of.
#[derive(Debug)]
pub(crate) struct Asked {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    connection: Connection,
}

pub(super) fn connection() -> Connection {
    Connection { client: IpAddr::from([10, 0, 0, 9]), port: 80, scheme: Scheme::Http }
}

pub(crate) fn asked(method: &str, target: &str) -> Asked {
    Asked {
        method: method.parse().unwrap(),
        target: target.parse().unwrap(),
        headers: HeaderMap::new(),
        connection: connection(),
    }
}

impl Asked {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn host(self, host: &str) -> Self {
        self.header(HOST.as_str(), host)
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.connection.port = port;
        self
    }

    pub(crate) fn client(mut self, address: &str) -> Self {
        self.connection.client = address.parse().unwrap();
        self
    }

    /// Method, target and headers as a person would give them.
    pub(crate) fn said(&self) -> (String, String, Vec<(String, String)>) {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let headers = self.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        (self.method.to_string(), self.target.to_string(), headers.collect())
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request::new(&self.method, &self.target, &self.headers, self.connection).unwrap()
    }
}

pub(super) fn exact(value: &str) -> ValueMatch {
    ValueMatch::Exact(value.into())
}

pub(super) fn regex(pattern: &str) -> ValueMatch {
    ValueMatch::Regex(Pattern::new(pattern).unwrap())
}

pub(super) fn header(name: &str, value: ValueMatch) -> HeaderMatch {
    HeaderMatch { name: name.parse().unwrap(), value }
}

pub(super) fn query(name: &str, value: ValueMatch) -> QueryMatch {
    QueryMatch { name: name.into(), value }
}

/// `n` numbers that divide all of `u64` evenly, none at the edge of a share.
pub(super) fn evenly(n: u64) -> impl Iterator<Item = u64> + Clone {
    (0..n).map(move |i| (2 * i + 1) * (u64::MAX / (2 * n)))
}

/// A redirect of the Gateway API that changes nothing.
pub(super) fn redirect() -> Redirect {
    Redirect {
        scheme: None,
        host: None,
        port: None,
        port_else: PortElse::Listener,
        path: None,
        status: StatusCode::FOUND,
    }
}
