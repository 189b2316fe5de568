//! What becomes of an HTTP request: the L7 model.
//!
//! ```text
//! policies ──resolve──> Rules ──Router::new──> Router ──decide(request)──> Decision
//!                                                └──why(request)──> every match and its verdict
//! ```
//!
//! Belongs here: what a request is matched with, which match goes first, what filters make of a
//! request and its answer, which backend takes it. All of it is values: nothing here reads a
//! socket or a clock or draws a number, so that the proxy, `explain` and tests get the same from
//! the same. Does not know how policies are merged or attached (`resolve`), what a backend stands
//! for, or how bytes become a request.
//!
//! | of | order | a path begins with | nothing takes it |
//! |---|---|---|---|
//! | TrafficRoute | as listed | bytes | the outer split |
//! | MeshHTTPRoute | [`Order::Mesh`] | segments | the service itself |
//! | HTTPRoute | [`Order::Gateway`] | segments | 404 |
//! | GRPCRoute | [`Order::Gateway`] | | UNIMPLEMENTED |

#![forbid(unsafe_code)]

mod answer;
mod cors;
mod decision;
mod filter;
mod hostname;
mod key;
mod matcher;
mod normal;
mod pattern;
mod precedence;
mod reach;
mod redirect;
mod request;
mod retry;
mod rewrite;
mod router;
mod rule;
mod split;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod why;
mod words;

pub use answer::{Answer, Language, Nowhere};
pub use cors::{Cors, Origin};
pub use decision::{Answered, Chance, Decision, Forward, HostOf, Sent, shadow};
pub use filter::{BadHeader, Filter, HeaderChange, HeaderChanges, Mirror, Share, header_name};
pub use hostname::{HostPrecedence, Hostname, NoHostname};
pub use key::{BadCookie, Cookie, Key, KeyOf, KeyPolicy, key};
pub use matcher::{
    GrpcMatch, GrpcName, HeaderMatch, Match, PathMatch, QueryMatch, Segments, ValueMatch,
};
pub use normal::normal_path;
pub use pattern::{Pattern, PatternError, Substitution};
pub use precedence::{Age, Criterion, Order, Precedence};
pub use reach::Unreached;
pub use redirect::{PortElse, Redirect};
pub use request::{BadRequest, Connection, Request, Scheme};
pub use retry::{Retry, Tried};
pub use rewrite::{Host, HostRewrite, NoHost, PathRewrite};
pub use router::{Found, Place, Router};
pub use rule::{BadRule, Rule, Rules, Timeouts};
pub use split::{Backend, BackendId, Choice, Destination, Readiness, Split};
pub use why::{Considered, Difference, Listed};
