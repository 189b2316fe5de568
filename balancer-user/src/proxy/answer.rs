//! Answers that the proxy gives itself.

use ::http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Bytes;

use super::{
    body::{Download, Underway},
    counts::Cause,
};
use crate::http::{Answer, Language};

/// Why the proxy, and no backend, answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The request contradicts itself.
    Bad,
    /// A head of HTTP/2 with too many fields. Of HTTP/1 hyper says so.
    TooManyFields,
    /// A method that only proxies carry out that clients know of.
    NotImplemented,
    /// Somebody dialled the listener itself, which is no VIP (RFC 9110, 15.5.20).
    Misdirected,
    /// The backend cannot be reached.
    Unreachable,
    /// The backend broke off before it answered, or answered with what is no HTTP.
    Broken,
    /// The backend did not answer in time.
    TooLate,
}

impl Own {
    fn status(self) -> StatusCode {
        match self {
            Self::Bad => StatusCode::BAD_REQUEST,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_GATEWAY,
            Self::TooLate => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Bad => "the request contradicts itself\n",
            Self::TooManyFields => "the request has too many header fields\n",
            Self::NotImplemented => "this method is not carried out\n",
            Self::Misdirected => "no service has this address\n",
            Self::Unreachable => "the backend cannot be reached\n",
            Self::Broken => "the backend broke off\n",
            Self::TooLate => "the backend did not answer in time\n",
        }
    }

    /// UNAVAILABLE, DEADLINE_EXCEEDED, … ("Status codes and their use in gRPC").
    fn code(self) -> &'static str {
        match self {
            Self::Bad => "13",
            Self::TooManyFields => "8",
            Self::NotImplemented | Self::Misdirected => "12",
            Self::Unreachable | Self::Broken => "14",
            Self::TooLate => "4",
        }
    }

    fn cause(self) -> Cause {
        match self {
            Self::Bad => Cause::Malformed,
            Self::TooManyFields => Cause::HeadSize,
            Self::NotImplemented => Cause::NotImplemented,
            Self::Misdirected => Cause::Misdirected,
            Self::Unreachable => Cause::Unreachable,
            Self::Broken => Cause::Broken,
            Self::TooLate => Cause::TooLate,
        }
    }

    /// The answer, which is counted.
    pub(super) fn answer(self, language: Language, request: Underway) -> Response<Download> {
        request.refused(self.cause());
        match language {
            Language::Http => {
                let mut answer = Response::new(text(self.text(), request));
                *answer.status_mut() = self.status();
                answer.headers_mut().insert(CONTENT_TYPE, PLAIN);
                if self == Self::Unreachable {
                    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                answer
            }
            Language::Grpc => {
                let mut answer = Response::new(text("", request));
                let headers = answer.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(GRPC_STATUS, HeaderValue::from_static(self.code()));
                headers
                    .insert(GRPC_MESSAGE, HeaderValue::from_static(self.text().trim_ascii_end()));
                answer
            }
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// An answer of the model's, with a reason where it has one.
pub(super) fn of_model(
    answer: Answer,
    why: Option<String>,
    request: Underway,
) -> Response<Download> {
    let Answer { status, headers } = answer;
    // Calls of gRPC are answered in headers.
    let why = why.filter(|_| status.is_client_error() || status.is_server_error());
    let said = why.is_some();
    let body = Bytes::from(why.map(|why| why + "\n").unwrap_or_default());
    let mut response = Response::new(Download::text(body, request));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if said {
        response.headers_mut().entry(CONTENT_TYPE).or_insert(PLAIN);
    }
    response
}

fn text(text: &'static str, request: Underway) -> Download {
    Download::text(Bytes::from_static(text.as_bytes()), request)
}
