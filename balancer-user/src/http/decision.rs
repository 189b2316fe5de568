//! What is done with a request: the rule's filters, carried out on values.

use std::borrow::Cow;

use ::http::{
    HeaderMap, HeaderValue,
    header::{HOST, SET_COOKIE},
};

use super::{
    answer::{Answer, Language, Nowhere},
    filter::{Filter, HeaderChange, Mirror},
    key::{self, Key},
    request::{Request, split_authority, with_query},
    retry::Retry,
    rewrite::HostRewrite,
    router::{Found, Router},
    rule::Timeouts,
    split::{Backend, BackendId, Choice, Destination, Readiness},
};

/// Numbers that the rules do not draw themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// Between backends.
    pub backend: Choice,
    /// For a new cookie.
    pub cookie: u64,
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Decision<'r> {
    /// It goes to a backend.
    Forward(Box<Forward<'r>>),
    /// The client is sent elsewhere.
    Redirect(Answered<'r>),
    /// A filter answers: a preflight request, or a fixed answer.
    Respond(Answered<'r>),
    /// There is nowhere to send it.
    Refuse(Nowhere, Answered<'r>),
}

/// An answer that no backend gives.
#[derive(Clone, Debug)]
pub struct Answered<'r> {
    /// What took the request; `None`: no rule did.
    pub found: Option<Found<'r>>,
    /// The answer.
    pub answer: Answer,
}

/// A request on its way to a backend.
#[derive(Clone, Debug)]
pub struct Forward<'r> {
    /// What took it.
    pub found: Found<'r>,
    /// Whom it goes to.
    pub backend: BackendId,
    /// Another path than the one it came with.
    pub path: Option<String>,
    /// Another query than the one it came with.
    pub query: Option<String>,
    /// The host that it goes with.
    pub host: HostOf<'r>,
    /// Changes of its headers, in order; none of `host`.
    pub request_headers: Vec<&'r HeaderChange>,
    /// Changes of the answer's headers, in order.
    pub response_headers: Vec<Cow<'r, HeaderChange>>,
    /// Copies, each for its share of the requests; without those that lead nowhere.
    pub mirrors: Vec<(BackendId, &'r Mirror)>,
    /// For how long.
    pub timeouts: Timeouts,
    /// When it is sent again; `None`: never.
    pub retry: Option<&'r Retry>,
    /// What chooses the endpoint; `None`: the load balancer is free.
    pub key: Option<u64>,
}

/// The host that a request goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostOf<'r> {
    /// The one it came with.
    Request,
    /// This one.
    Set(Cow<'r, str>),
    /// That of the endpoint.
    Endpoint,
}

/// A request as a backend sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Path and query.
    pub path: String,
    /// Host and perhaps port; `None`: those of the endpoint.
    pub host: Option<String>,
    /// Headers, without `host`.
    pub headers: HeaderMap,
}

impl Router {
    /// What is done with a request. `readiness` says whether a backend can take it.
    pub fn decide(
        &self,
        request: &Request<'_>,
        chance: Chance,
        readiness: impl Fn(BackendId) -> Readiness,
    ) -> Decision<'_> {
        let language = Language::of(request.headers);
        let Some(found) = self.find(request) else {
            let answer = Nowhere::NoRule.answer(language);
            return Decision::Refuse(Nowhere::NoRule, Answered { found: None, answer });
        };
        let mut steps = Steps::default();
        for filter in &found.rule.filters {
            if let Filter::Cors(cors) = filter
                && let Some(answer) = cors.preflight(request)
            {
                return Decision::Respond(steps.answered(found, answer));
            }
        }
        for filter in &found.rule.filters {
            steps.take(filter, request, found);
        }
        for filter in &found.rule.filters {
            match filter {
                Filter::Redirect(redirect) => {
                    let answer = redirect.answer(request, found.matched.path.as_ref());
                    return Decision::Redirect(steps.answered(found, answer));
                }
                Filter::Respond(status) => {
                    return Decision::Respond(steps.answered(found, Answer::new(*status)));
                }
                _ => {}
            }
        }
        let nowhere = |why: Nowhere, steps: &Steps<'_>| {
            Decision::Refuse(why, steps.answered(found, why.answer(language)))
        };
        let Some(backend) = found.rule.split.choose(chance.backend) else {
            return nowhere(Nowhere::NoBackend, &steps);
        };
        let Destination::Backend(id) = backend.destination else {
            return nowhere(Nowhere::Invalid, &steps);
        };
        match readiness(id) {
            Readiness::Ready => {}
            Readiness::Empty => return nowhere(Nowhere::Empty, &steps),
            Readiness::Invalid => return nowhere(Nowhere::Invalid, &steps),
        }
        for filter in &backend.filters {
            steps.take(filter, request, found);
        }
        steps.mirrors.retain(|(id, _)| readiness(*id) == Readiness::Ready);
        let key = key::key(&found.rule.keys, request, chance.cookie);
        Decision::Forward(Box::new(steps.forward(found, (backend, id), key)))
    }
}

/// What filters have come to so far.
#[derive(Default)]
struct Steps<'r> {
    path: Option<String>,
    query: Option<String>,
    host: Option<HostOf<'r>>,
    request_headers: Vec<&'r HeaderChange>,
    response_headers: Vec<Cow<'r, HeaderChange>>,
    mirrors: Vec<(BackendId, &'r Mirror)>,
}

impl<'r> Steps<'r> {
    fn take(&mut self, filter: &'r Filter, request: &Request<'_>, found: Found<'r>) {
        match filter {
            Filter::RequestHeaders(changes) => {
                for change in changes.iter() {
                    if change.name() != HOST {
                        self.request_headers.push(change);
                    } else if let Some(host) = change.host() {
                        self.host = Some(HostOf::Set(Cow::Borrowed(host)));
                    }
                }
            }
            Filter::ResponseHeaders(changes) => {
                self.response_headers.extend(changes.iter().map(Cow::Borrowed));
            }
            Filter::Path(rewrite) => {
                let (path, query) = rewrite.apply(&request.path, found.matched.path.as_ref());
                self.path = Some(path);
                self.query = query;
            }
            Filter::Host(HostRewrite::OfEndpoint) => self.host = Some(HostOf::Endpoint),
            Filter::Host(HostRewrite::Value(host)) => {
                self.host = Some(HostOf::Set(Cow::Borrowed(host.as_str())));
            }
            Filter::Host(rewrite @ HostRewrite::FromPath(_)) => {
                if let Some(host) = rewrite.apply(&request.path) {
                    self.host = Some(HostOf::Set(Cow::Owned(host.into_owned())));
                }
            }
            Filter::Mirror(mirror) => {
                if let Destination::Backend(id) = mirror.destination {
                    self.mirrors.push((id, mirror));
                }
            }
            Filter::Cors(cors) => {
                let leave = cors.leave(request.headers).unwrap_or_default();
                self.response_headers.extend(leave.into_iter().map(Cow::Owned));
            }
            // The rule's are carried out once all others are; a backend's answer nothing, since the
            // request is its own already (policies refuse them there).
            Filter::Redirect(_) | Filter::Respond(_) => {}
        }
    }

    /// An answer with the headers that answers of the rule get.
    fn answered<'f>(&self, found: Found<'f>, mut answer: Answer) -> Answered<'f> {
        self.response_headers.iter().for_each(|change| change.apply(&mut answer.headers));
        Answered { found: Some(found), answer }
    }

    fn forward(self, found: Found<'r>, to: (&Backend, BackendId), key: Key) -> Forward<'r> {
        let (backend, id) = to;
        let own = if backend.own_host { HostOf::Endpoint } else { HostOf::Request };
        let mut response_headers = self.response_headers;
        let cookie = |value: HeaderValue| Cow::Owned(HeaderChange::Append(SET_COOKIE, value));
        response_headers.extend(key.set_cookies.into_iter().map(cookie));
        Forward {
            found,
            backend: id,
            path: self.path,
            query: self.query,
            host: self.host.unwrap_or(own),
            request_headers: self.request_headers,
            response_headers,
            mirrors: self.mirrors,
            timeouts: found.rule.timeouts,
            retry: found.rule.retry.as_ref(),
            key: key.hash,
        }
    }
}

impl Forward<'_> {
    /// Path and query as the backend sees them.
    pub fn path_and_query(&self, request: &Request<'_>) -> String {
        let path = self.path.as_deref().unwrap_or(&request.path);
        with_query(path, self.query.as_deref().or(request.query)).into_owned()
    }

    /// The host that the backend sees; `None`: that of the endpoint.
    pub fn host<'h>(&'h self, request: &Request<'h>) -> Option<&'h str> {
        match &self.host {
            HostOf::Request => Some(request.authority),
            HostOf::Set(host) => Some(host),
            HostOf::Endpoint => None,
        }
    }

    /// The request as the backend sees it.
    pub fn sent(&self, request: &Request<'_>) -> Sent {
        let mut headers = request.headers.clone();
        headers.remove(HOST);
        self.request_headers.iter().for_each(|change| change.apply(&mut headers));
        let host = self.host(request).map(str::to_owned);
        Sent { path: self.path_and_query(request), host, headers }
    }

    /// The same as a mirror sees it.
    pub fn mirrored(&self, mirror: &Mirror, request: &Request<'_>) -> Sent {
        let mut sent = self.sent(request);
        if mirror.shadow {
            sent.host = sent.host.map(|authority| shadow(&authority));
        }
        sent
    }

    /// Makes the changes of an answer's headers.
    pub fn answer(&self, headers: &mut HeaderMap) {
        self.response_headers.iter().for_each(|change| change.apply(headers));
    }
}

/// The host with `-shadow` behind it, the port kept (Envoy, `RouteAction.request_mirror_policies`).
pub fn shadow(authority: &str) -> String {
    let (host, _) = split_authority(authority);
    format!("{host}-shadow{}", &authority[host.len()..])
}
