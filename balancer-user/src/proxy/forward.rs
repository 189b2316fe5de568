//! From a request to its answer.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use ::http::{
    HeaderValue, Method, Request, Response, Version,
    header::{CONNECTION, UPGRADE},
    request, response,
};
use hyper::{
    body::{Body, Bytes, Incoming},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::debug;

use super::{
    answer::{self, Own},
    body::{COPY_BEHIND, Download, Inflow, Underway, Upload},
    connection::Connection,
    headers::{self, Hop, Wrong},
    reals::{Lease, Unanswered, Why},
    ruled::Ruled,
    target::{Target, has_form, own_name},
};
use crate::http::{
    self, BackendId, Chance, Choice, Decision, Forward, Language, Retry, Scheme, Tried,
};

/// Endpoints that are tried where connections cannot be made at all.
const REALS_TRIED: u32 = 3;

/// Answers a request.
pub(super) async fn answer(on: &Rc<Connection>, request: Request<Incoming>) -> Response<Download> {
    let version = request.version();
    let most = on.shard.options.limits.head_fields;
    let wrong = match has_form(request.method(), request.uri()) {
        true => headers::wrong(request.headers(), version, most),
        false => Some(Wrong::Contradiction),
    };
    let mut answer = match wrong {
        None => answered(on, request).await,
        Some(wrong) => {
            let own = match wrong {
                Wrong::Contradiction => Own::Bad,
                Wrong::Coding => Own::NotImplemented,
                Wrong::TooMany => Own::TooManyFields,
            };
            own.answer(Language::of(request.headers()), Underway::new(&on.pulse))
        }
    };
    // Who cannot say where a request ends is not asked for another.
    if on.is_last() || wrong.is_some() {
        headers::last(answer.headers_mut(), version);
    }
    answer
}

async fn answered(on: &Rc<Connection>, request: Request<Incoming>) -> Response<Download> {
    let underway = Underway::new(&on.pulse);
    let language = Language::of(request.headers());
    if request.method() == Method::CONNECT {
        // What follows would be bytes for somebody else.
        return last(Own::NotImplemented.answer(language, underway), request.version());
    }
    let Some(rules) = on.rules() else {
        // Nobody hands over what has no rules: somebody dialled the listener itself.
        return last(Own::Misdirected.answer(language, underway), request.version());
    };
    let (mut parts, body) = request.into_parts();
    let connection =
        http::Connection { client: on.client, port: on.dialled.port(), scheme: Scheme::Http };
    let Ok(view) = http::Request::new(&parts.method, &parts.uri, &parts.headers, connection) else {
        return last(Own::Bad.answer(language, underway), parts.version);
    };
    let (chance, number) = {
        let mut random = on.shard.random.borrow_mut();
        let backend = Choice::Number(random.u64(..));
        (Chance { backend, cookie: random.u64(..) }, random.u64(..))
    };
    let decision = rules.router().decide(&view, chance, |id| rules.readiness(id));
    let forward = match decision {
        Decision::Forward(forward) => forward,
        Decision::Redirect(answered) | Decision::Respond(answered) => {
            return answer::of_model(answered.answer, None, underway);
        }
        Decision::Refuse(why, answered) => {
            return answer::of_model(answered.answer, Some(why.to_string()), underway);
        }
    };
    let Ok(target) = Target::of(&forward, &view, &parts.uri) else {
        return Own::Bad.answer(language, underway);
    };
    drop(view);
    match headers::hop(&parts.method, &mut parts.headers) {
        Hop::On => {}
        Hop::Last if parts.method == Method::OPTIONS => {
            return Response::new(Download::text(Bytes::new(), underway));
        }
        // What came would go back with whatever was added on the way.
        Hop::Last => return last(Own::NotImplemented.answer(language, underway), parts.version),
        Hop::Unknown => return last(Own::Bad.answer(language, underway), parts.version),
    }
    let upgrade = Upgrade::taken(&mut parts);
    let mirrors: Vec<_> = forward
        .mirrors
        .iter()
        .filter(|(_, mirror)| mirror.share.takes(on.shard.random.borrow_mut().u64(..)))
        .map(|(id, mirror)| (*id, mirror.shadow))
        .collect();
    let added = on.shard.options.added;
    headers::of_request(&mut parts.headers, &on.client_text, parts.version, added);
    forward.request_headers.iter().for_each(|change| change.apply(&mut parts.headers));
    if let Some(upgrade) = &upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, upgrade.to.clone());
    }
    let body = upload(on, &rules, &parts, &target, body, &mirrors);
    let tries = Tries { on, rules: &rules, forward: &forward, target: &target, language, number };
    tries.until_answered(parts, body, upgrade, underway).await
}

fn last(mut answer: Response<Download>, version: Version) -> Response<Download> {
    headers::last(answer.headers_mut(), version);
    answer
}

/// What the client sends, and the copies of it that mirrors get.
fn upload(
    on: &Rc<Connection>,
    rules: &Ruled,
    parts: &request::Parts,
    target: &Target,
    body: Incoming,
    mirrors: &[(BackendId, bool)],
) -> Upload {
    let empty = body.is_end_stream();
    let mut copies = Vec::new();
    for (id, shadow) in mirrors {
        let number = on.shard.random.borrow_mut().u64(..);
        let Some(real) = rules.real(*id, None, number, |real| on.shard.pool.live(real)) else {
            continue;
        };
        let spoken = rules.spoken(*id, Language::of(&parts.headers) == Language::Grpc);
        let body = if empty {
            Upload::Empty
        } else {
            let (copy, pieces) = mpsc::channel(COPY_BEHIND);
            copies.push(copy);
            Upload::Copy(pieces)
        };
        let mut request = Request::from_parts(parts.clone(), body);
        let own = if target.host.is_none() { own_name(rules, real) } else { None };
        if target.shadowed(*shadow).write(&mut request, spoken, own.as_ref()).is_err() {
            continue;
        }
        let peer = on.shard.pool.peer((real, spoken));
        let within = on.shard.options.limits.stalled;
        spawn_local(async move {
            let copied = async {
                match peer.send(request).await {
                    // What comes back is thrown away; reading it keeps the connection usable.
                    Ok((answer, lease)) => drain(answer.into_body(), lease).await,
                    Err(Unanswered { why, .. }) => debug!(%real, %why, "a copy was not answered"),
                }
            };
            if timeout(within, copied).await.is_err() {
                debug!(%real, "a copy was not answered in time");
            }
        });
    }
    let inflow = Inflow { body, pulse: on.of_request() };
    match (empty, copies.is_empty()) {
        (true, _) => Upload::Empty,
        (false, true) => Upload::Streamed(inflow),
        (false, false) => Upload::Copied(inflow, copies),
    }
}

async fn drain(mut body: Incoming, lease: Lease) {
    use http_body_util::BodyExt;
    while let Some(Ok(_)) = body.frame().await {}
    if body.is_end_stream() {
        lease.finish();
    }
}

/// A change of protocol that the client asks for.
struct Upgrade {
    to: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    fn taken(parts: &mut request::Parts) -> Option<Self> {
        let client = parts.extensions.remove::<OnUpgrade>()?;
        let to = headers::upgrade(&parts.headers)?;
        Some(Self { to, client })
    }

    /// Carries bytes both ways once both sides have changed.
    fn carry(self, answer: &mut Response<Incoming>, lease: Lease, request: Underway) {
        let backend = hyper::upgrade::on(answer);
        spawn_local(async move {
            // For as long as it lasts.
            let (_lease, _request) = (lease, request);
            let (client, backend) = match (self.client.await, backend.await) {
                (Ok(client), Ok(backend)) => (client, backend),
                (Err(error), _) | (_, Err(error)) => {
                    return debug!(%error, "a connection did not change its protocol");
                }
            };
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                debug!(%error, "a connection with another protocol broke off");
            }
        });
    }
}

/// A request that may be sent more than once.
struct Tries<'r> {
    on: &'r Rc<Connection>,
    rules: &'r Ruled,
    forward: &'r Forward<'r>,
    target: &'r Target,
    language: Language,
    /// Random.
    number: u64,
}

/// No answer came in time.
struct TooLate;

/// How a try ended without an answer.
struct Failed {
    own: Own,
    tried: Tried,
    /// What can be sent again.
    back: Option<Box<Request<Upload>>>,
    /// The connection had been kept, and ended as it was used.
    kept: bool,
    /// Nothing of the request was sent.
    unsent: bool,
}

impl Tries<'_> {
    async fn until_answered(
        &self,
        parts: request::Parts,
        body: Upload,
        mut upgrade: Option<Upgrade>,
        underway: Underway,
    ) -> Response<Download> {
        let begun = Instant::now();
        let until = self.forward.timeouts.request.map(|request| begun + request);
        let empty = matches!(body, Upload::Empty);
        let idempotent = parts.method.is_idempotent();
        // What is sent again has to be at hand still.
        let again = empty && (idempotent || self.forward.retry.is_some());
        let spare = again.then(|| parts.clone());
        let once_more =
            || Some(Box::new(Request::from_parts(spare.as_ref()?.clone(), Upload::Empty)));
        let mut request = Request::from_parts(parts, body);
        let (mut tries, mut reals, mut stale) = (0, 0, 0);
        loop {
            tries += 1;
            let failed = match self.once(request, tries, until).await {
                Ok((mut answer, lease)) => {
                    let ended = Tried::Answered(answer.status());
                    if self.retries(tries, ended)
                        && let Some(again) = once_more()
                    {
                        drop(lease);
                        self.back_off().await;
                        request = *again;
                        continue;
                    }
                    if answer.status() == ::http::StatusCode::SWITCHING_PROTOCOLS
                        && let Some(upgrade) = upgrade.take()
                    {
                        let headers = answer.headers().get(UPGRADE).cloned();
                        upgrade.carry(&mut answer, lease, Underway::new(&self.on.pulse));
                        return changed(answer, headers, underway);
                    }
                    return self.download(answer, lease, until, underway);
                }
                Err(failed) => failed,
            };
            let Failed { own, tried, back, kept, unsent } = failed;
            request = match back.or_else(once_more) {
                Some(again) if until.is_none_or(|until| Instant::now() < until) => *again,
                _ => return own.answer(self.language, underway),
            };
            // It was the connection's end, not the backend's word: safe wherever sending twice is
            // (RFC 9110, 9.2.2), and no try of the rule's.
            if kept && idempotent && stale < REALS_TRIED {
                (stale, tries) = (stale + 1, tries - 1);
                continue;
            }
            // Nobody has seen anything of it: another endpoint may.
            if unsent && own == Own::Unreachable && reals < REALS_TRIED - 1 {
                reals += 1;
                continue;
            }
            if !self.retries(tries, tried) {
                return own.answer(self.language, underway);
            }
            self.back_off().await;
        }
    }

    fn retries(&self, tries: u32, ended: Tried) -> bool {
        self.forward.retry.is_some_and(|retry| retry.again(tries, ended))
    }

    async fn back_off(&self) {
        sleep(self.forward.retry.and_then(|retry: &Retry| retry.backoff).unwrap_or_default()).await;
    }

    /// One try at one endpoint.
    async fn once(
        &self,
        mut request: Request<Upload>,
        nth: u32,
        until: Option<Instant>,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let shard = &self.on.shard;
        let number = self.number.wrapping_add(u64::from(nth).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let id = self.forward.backend;
        let real = self.rules.real(id, self.forward.key, number, |real| shard.pool.live(real));
        let refused = |own, tried| Failed { own, tried, back: None, kept: false, unsent: true };
        let Some(real) = real else { return Err(refused(Own::Unreachable, Tried::NoAnswer)) };
        let spoken = self.rules.spoken(id, self.language == Language::Grpc);
        let own = if self.target.host.is_none() { own_name(self.rules, real) } else { None };
        if self.target.write(&mut request, spoken, own.as_ref()).is_err() {
            return Err(refused(Own::Bad, Tried::NoAnswer));
        }
        let peer = shard.pool.peer((real, spoken));
        let sending = pin!(peer.send(request));
        match self.in_time(sending, until).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(Unanswered { why, request })) => {
                debug!(%real, %why, "a request was not answered");
                let own = match &why {
                    Why::Connect(_) | Why::ConnectTimedOut | Why::Handshake(_) => Own::Unreachable,
                    // Of what the client sent last: no chunk, or not all that it said would come.
                    Why::Kept(error) | Why::Fresh(error) if error.is_user() => Own::Bad,
                    Why::Kept(_) | Why::Fresh(_) => Own::Broken,
                };
                Err(Failed {
                    own,
                    tried: Tried::NoAnswer,
                    unsent: request.is_some(),
                    kept: matches!(why, Why::Kept(_)),
                    back: request,
                })
            }
            Err(TooLate) => Err(Failed { unsent: false, ..refused(Own::TooLate, Tried::TimedOut) }),
        }
    }

    /// Waits for an answer until the rule's end, the try's end, or the end of one that stands still,
    /// whichever is first.
    async fn in_time<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        until: Option<Instant>,
    ) -> Result<T, TooLate> {
        let of_try = self.forward.timeouts.backend_request;
        if of_try.is_none() && until.is_none() {
            // No timer: the task of the connection or stream, of which this is a part, is woken in
            // time.
            let pulse = self.on.of_request();
            return poll_fn(|cx| match pulse.stands_still() {
                true => Poll::Ready(Err(TooLate)),
                false => sending.as_mut().poll(cx).map(Ok),
            })
            .await;
        }
        let stalled = self.on.shard.options.limits.stalled;
        let end = Instant::now() + of_try.map_or(stalled, |of_try| of_try.min(stalled));
        let end = until.map_or(end, |until| until.min(end));
        timeout_at(end, sending).await.map_err(|_| TooLate)
    }

    /// The answer as the client gets it.
    fn download(
        &self,
        answer: Response<Incoming>,
        lease: Lease,
        until: Option<Instant>,
        underway: Underway,
    ) -> Response<Download> {
        let (mut parts, body) = answer.into_parts();
        let response::Parts { headers, version, extensions, .. } = &mut parts;
        headers::of_answer(headers, *version, self.on.shard.options.added);
        self.forward.answer(headers);
        extensions.clear();
        *version = Version::HTTP_11;
        let until = until.map(|until| Box::pin(sleep_until(until)));
        Response::from_parts(parts, Download::of_backend(body, lease, until, underway))
    }
}

/// The answer that says that the protocol is another now.
fn changed(
    answer: Response<Incoming>,
    to: Option<HeaderValue>,
    underway: Underway,
) -> Response<Download> {
    let (mut parts, _) = answer.into_parts();
    headers::between_neighbours(&mut parts.headers);
    parts.extensions.clear();
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.extend(to.map(|to| (UPGRADE, to)));
    Response::from_parts(parts, Download::text(Bytes::new(), underway))
}
