//! Matches of MeshHTTPRoute, HTTPRoute and GRPCRoute (semantics 4.4, 5.2, 5.7).

use super::changes::{Refused, take};
use crate::{
    http::{self, GrpcName, Match, QueryMatch, Segments, ValueMatch, header_name},
    policy::{
        gateway::GrpcMatch,
        http_route::{HeaderMatch, HeaderValueMatch, Located, PathMatch, RequestMatch, TextMatch},
    },
};

/// What a request is asked for.
pub fn request_match(written: &Located<RequestMatch>, refused: &mut Vec<Refused>) -> Match {
    let RequestMatch { path, method, headers, query } = &written.value;
    let query = query
        .iter()
        .map(|one| QueryMatch { name: one.name.as_str().into(), value: text(&one.value) });
    Match {
        method: method.map(|method| ValueMatch::Exact(method.name().into())),
        path: path.as_ref().map(path_match),
        headers: header_matches(headers, &written.field, refused),
        query: query.collect(),
    }
}

/// What a call of gRPC is asked for. Without service and method it is any call.
pub fn grpc_match(written: &Located<GrpcMatch>, refused: &mut Vec<Refused>) -> Match {
    let GrpcMatch { service, method, headers } = &written.value;
    let name = |name: &TextMatch| match name {
        TextMatch::Exact(name) => GrpcName::Exact(name.as_str().into()),
        TextMatch::Regex(pattern) => GrpcName::Regex(pattern.clone()),
    };
    let named = service.is_some() || method.is_some();
    let call =
        http::GrpcMatch { service: service.as_ref().map(name), method: method.as_ref().map(name) };
    Match {
        path: named.then_some(http::PathMatch::Grpc(call)),
        headers: header_matches(headers, &written.field, refused),
        ..Match::default()
    }
}

fn path_match(path: &PathMatch) -> http::PathMatch {
    match path {
        PathMatch::Exact(path) => http::PathMatch::Exact(path.as_str().into()),
        PathMatch::Prefix(prefix) => http::PathMatch::Segments(Segments::new(prefix)),
        PathMatch::Regex(pattern) => http::PathMatch::Regex(pattern.clone()),
    }
}

fn text(value: &TextMatch) -> ValueMatch {
    match value {
        TextMatch::Exact(value) => ValueMatch::Exact(value.as_str().into()),
        TextMatch::Regex(pattern) => ValueMatch::Regex(pattern.clone()),
    }
}

fn header_matches(
    headers: &[HeaderMatch],
    field: &str,
    refused: &mut Vec<Refused>,
) -> Vec<http::HeaderMatch> {
    let mut matches = Vec::with_capacity(headers.len());
    for (at, header) in headers.iter().enumerate() {
        let value = match &header.value {
            HeaderValueMatch::Exact(value) => ValueMatch::Exact(value.as_str().into()),
            HeaderValueMatch::Prefix(prefix) => ValueMatch::Prefix(prefix.as_str().into()),
            HeaderValueMatch::Regex(pattern) => ValueMatch::Regex(pattern.clone()),
            HeaderValueMatch::Present => ValueMatch::Present,
            HeaderValueMatch::Absent => ValueMatch::Absent,
        };
        let name =
            take(refused, || format!("{field}.headers[{at}].name"), header_name(&header.name));
        matches.extend(name.map(|name| http::HeaderMatch { name, value }));
    }
    matches
}
