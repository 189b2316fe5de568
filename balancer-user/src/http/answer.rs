//! Answers that no backend gives.

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

/// An answer without a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
}

/// In what the answer is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// HTTP's codes.
    Http,
    /// Codes of gRPC, in headers of an answer without messages.
    Grpc,
}

impl Language {
    /// That of a client, by the type of what it sends (gRPC over HTTP/2, "Requests"): one that
    /// calls a method reads codes of gRPC, whatever rule it meets.
    pub fn of(headers: &HeaderMap) -> Self {
        const CALL: &[u8] = b"application/grpc";
        let sent = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        match sent.get(..CALL.len()) {
            Some(kind) if kind.eq_ignore_ascii_case(CALL) => match sent.get(CALL.len()) {
                None | Some(b'+' | b';' | b' ') => Self::Grpc,
                Some(_) => Self::Http,
            },
            _ => Self::Http,
        }
    }
}

/// Why there is nowhere to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// No rule takes it.
    NoRule,
    /// Its rule has no backend with a weight.
    NoBackend,
    /// The chosen backend is none.
    Invalid,
    /// The chosen backend has no endpoint that is ready.
    Empty,
}

impl Nowhere {
    /// What the client is told (semantics 5.3, 5.4, 5.7).
    pub fn answer(self, language: Language) -> Answer {
        match language {
            Language::Http => Answer::new(match self {
                Self::NoRule => StatusCode::NOT_FOUND,
                Self::NoBackend | Self::Invalid => StatusCode::INTERNAL_SERVER_ERROR,
                Self::Empty => StatusCode::SERVICE_UNAVAILABLE,
            }),
            Language::Grpc => {
                // UNIMPLEMENTED and UNAVAILABLE ("Status codes and their use in gRPC").
                let code = if self == Self::NoRule { "12" } else { "14" };
                let mut answer = Answer::new(StatusCode::OK);
                answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                answer.headers.insert(GRPC_STATUS, HeaderValue::from_static(code));
                answer
            }
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule takes the request",
            Self::NoBackend => "the rule has no backend with a weight",
            Self::Invalid => "the reference to the backend leads nowhere",
            Self::Empty => "the backend has no endpoint that is ready",
        })
    }
}

impl Answer {
    /// An answer of nothing but a code.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_answered_with_a_code_of_its_own() {
        let code = |why: Nowhere| why.answer(Language::Http).status.as_u16();
        assert_eq!(code(Nowhere::NoRule), 404);
        assert_eq!(code(Nowhere::NoBackend), 500);
        assert_eq!(code(Nowhere::Invalid), 500);
        assert_eq!(code(Nowhere::Empty), 503);
    }

    #[test]
    fn who_sends_messages_of_grpc_reads_its_codes() {
        let of = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            Language::of(&headers)
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC; a=b"] {
            assert_eq!(of(kind), Language::Grpc, "{kind}");
        }
        // gRPC-Web has bodies of its own, which somebody between would have to make.
        for kind in ["application/grpc-web", "application/json", "application", ""] {
            assert_eq!(of(kind), Language::Http, "{kind}");
        }
        assert_eq!(Language::of(&HeaderMap::new()), Language::Http);
    }

    #[test]
    fn calls_of_grpc_are_answered_in_grpc() {
        for (why, code) in [
            (Nowhere::NoRule, "12"),
            (Nowhere::NoBackend, "14"),
            (Nowhere::Invalid, "14"),
            (Nowhere::Empty, "14"),
        ] {
            let answer = why.answer(Language::Grpc);
            assert_eq!(
                (answer.status.as_u16(), &answer.headers["grpc-status"]),
                (200, &HeaderValue::from_static(code))
            );
            assert_eq!(answer.headers[CONTENT_TYPE], "application/grpc");
        }
    }
}
