//! Names that policies give in place of addresses: asked as their answers run out.
//!
//! An answer is kept for its time to live, within bounds. A question that fails keeps the last
//! answer, also that of an agent before this one, and is asked again soon. Only an answer with
//! other addresses, or the first failure, makes anybody do anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{
    bell::{Bell, Cause},
    state::{self, NameState},
};
use crate::resolve::Names;

/// An answer is asked for again no sooner and no later than this, whatever its time to live.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(60 * 60);
/// After a failure; twice as long after each that follows.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Questions under way at once.
const ASKED_MAX: usize = 64;

/// What is to be asked, and whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Question {
    names: BTreeSet<String>,
    /// Empty: the system's servers.
    servers: Vec<SocketAddr>,
}

type Answers = BTreeMap<String, NameState>;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Asker {
    question: watch::Sender<Question>,
    answers: watch::Receiver<Answers>,
}

/// The other end, which asks.
#[derive(Debug)]
pub(super) struct Resolver {
    question: watch::Receiver<Question>,
    answers: watch::Sender<Answers>,
    /// Answers that an agent before this one had.
    known: Names,
}

/// Both ends; `known` are answers to keep where nothing better comes.
pub(super) fn asking(known: Names) -> (Asker, Resolver) {
    let (question, asked) = watch::channel(Question::default());
    let (answered, answers) = watch::channel(Answers::new());
    (Asker { question, answers }, Resolver { question: asked, answers: answered, known })
}

impl Asker {
    /// From now on these names. Waits for names that nobody has asked for yet, but not long: a
    /// set must not wait for a server that is down.
    pub(super) fn want(&mut self, names: BTreeSet<String>, servers: &[SocketAddr], wait: Duration) {
        let question = Question { names, servers: servers.to_vec() };
        self.question.send_if_modified(|now| {
            let other = *now != question;
            if other {
                now.clone_from(&question);
            }
            other
        });
        let all = |answers: &Answers| question.names.iter().all(|name| answers.contains_key(name));
        let answers = &mut self.answers;
        // The writer works on a thread of its own; the runtime goes on meanwhile.
        let waited = tokio::runtime::Handle::current()
            .block_on(async { tokio::time::timeout(wait, answers.wait_for(all)).await.is_ok() });
        if !waited {
            let silent =
                question.names.iter().filter(|name| !self.answers.borrow().contains_key(*name));
            for name in silent {
                warn!(name, "no answer yet; the set is carried out without its addresses");
            }
        }
    }

    /// What is known now.
    pub(super) fn names(&self) -> Names {
        let mut names = Names::default();
        for answer in self.answers.borrow().values() {
            names.insert(&answer.name, answer.addresses.iter().copied(), answer.problem.clone());
        }
        names
    }

    /// The same for people.
    pub(super) fn states(&self) -> Vec<NameState> {
        self.answers.borrow().values().cloned().collect()
    }
}

/// A name that is asked for.
#[derive(Debug)]
struct Entry {
    next: Instant,
    under_way: bool,
    failures: u32,
}

/// Addresses, and for how long they are good.
type Got = Result<(Vec<IpAddr>, Duration), String>;

impl Resolver {
    /// Asks for ever.
    pub(super) async fn follow(mut self, bell: Arc<Bell>) {
        let mut servers: Option<Vec<SocketAddr>> = None;
        let mut resolver = Err("no resolver yet".to_owned());
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let mut asked: JoinSet<(String, Got)> = JoinSet::new();
        loop {
            let question = self.question.borrow_and_update().clone();
            let now = Instant::now();
            if servers.as_ref() != Some(&question.servers) {
                resolver = build(&question.servers);
                servers = Some(question.servers.clone());
                entries.clear();
            }
            entries.retain(|name, _| question.names.contains(name));
            for name in &question.names {
                entries.entry(name.clone()).or_insert(Entry {
                    next: now,
                    under_way: false,
                    failures: 0,
                });
            }
            self.forget(&question.names);
            for (name, entry) in &mut entries {
                if entry.next <= now && !entry.under_way && asked.len() < ASKED_MAX {
                    entry.under_way = true;
                    asked.spawn(ask(name.clone(), resolver.clone()));
                }
            }
            let waiting = entries.values().filter(|entry| !entry.under_way);
            let next = waiting.map(|entry| entry.next).min().filter(|_| asked.len() < ASKED_MAX);
            tokio::select! {
                changed = self.question.changed() => {
                    if changed.is_err() {
                        // The writer is gone, and the agent with it.
                        return;
                    }
                }
                Some(done) = asked.join_next(), if !asked.is_empty() => {
                    let Ok((name, got)) = done else { continue };
                    let Some(entry) = entries.get_mut(&name) else { continue };
                    let failed = got.is_err();
                    entry.under_way = false;
                    entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
                    entry.next = Instant::now() + pause(&got, entry.failures);
                    if failed && question.servers.is_empty() {
                        // The system may have other servers by now.
                        resolver = build(&[]);
                    }
                    if self.note(name, got) {
                        bell.ring(Cause::Names);
                    }
                }
                () = super::sleep_until(next) => {}
            }
        }
    }

    fn forget(&self, names: &BTreeSet<String>) {
        self.answers.send_if_modified(|answers| {
            let before = answers.len();
            answers.retain(|name, _| names.contains(name));
            answers.len() < before
        });
    }

    /// True: somebody should know.
    fn note(&self, name: String, got: Got) -> bool {
        let before = self.answers.borrow().get(&name).cloned();
        let known = || {
            let answer = self.known.answer(&name);
            answer.map(|answer| answer.addresses.clone()).unwrap_or_default()
        };
        let mut now = before.clone().unwrap_or_else(|| NameState {
            name: name.clone(),
            addresses: known(),
            ..NameState::default()
        });
        match got {
            Ok((addresses, _)) => {
                now.addresses = addresses;
                now.problem = None;
                now.failing_since = None;
            }
            Err(problem) => {
                now.problem = Some(problem);
                now.failing_since = now.failing_since.or_else(|| Some(state::now()));
            }
        }
        let first = before.is_none();
        let other = before.as_ref().is_none_or(|before| before.addresses != now.addresses);
        let failed_before = before.as_ref().is_some_and(|before| before.problem.is_some());
        match &now.problem {
            Some(problem) if !failed_before => warn!(
                name,
                kept = now.addresses.len(),
                "the name does not resolve, the last answer is kept: {problem}"
            ),
            None if failed_before => {
                info!(name, addresses = now.addresses.len(), "the name resolves again");
            }
            None if other => info!(name, addresses = now.addresses.len(), "resolved"),
            _ => {}
        }
        let failing = now.problem.is_some() != failed_before;
        self.answers.send_modify(|answers| _ = answers.insert(name, now));
        // The writer waits for the first answer by itself, or goes on without it.
        first || other || failing
    }
}

/// How long until the question is asked again.
fn pause(got: &Got, failures: u32) -> Duration {
    match got {
        Ok((_, ttl)) => (*ttl).clamp(TTL_MIN, TTL_MAX),
        Err(_) => {
            let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
            RETRY_MIN.saturating_mul(doubled).min(RETRY_MAX)
        }
    }
}

/// A resolver, or why there is none: a file of the system that cannot be read.
type Built = Result<TokioResolver, String>;

fn build(servers: &[SocketAddr]) -> Built {
    let tune = |options: &mut ResolverOpts| {
        // Answers are kept here, for as long as their time to live says.
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    };
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()
            .map_err(|error| format!("the system's DNS configuration cannot be used: {error}"))?
    } else {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    tune(builder.options_mut());
    builder.build().map_err(|error| error.to_string())
}

async fn ask(name: String, resolver: Built) -> (String, Got) {
    let got = match resolver {
        Ok(resolver) => match resolver.lookup_ip(name.as_str()).await {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.iter().map(|a| a.to_canonical()).collect();
                // In one order, so that equal answers change nothing.
                addresses.sort_unstable();
                addresses.dedup();
                Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
            }
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error),
    };
    (name, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_answer_is_asked_again_when_its_time_is_over_within_bounds() {
        let got = |seconds| Ok((Vec::new(), Duration::from_secs(seconds)));
        assert_eq!(pause(&got(300), 0), Duration::from_secs(300));
        assert_eq!(pause(&got(0), 0), TTL_MIN);
        assert_eq!(pause(&got(1_000_000), 0), TTL_MAX);
        let failed = Err("no".to_owned());
        let pauses: Vec<u64> =
            [1, 2, 3, 5, 6, 40].map(|failures| pause(&failed, failures).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn a_failure_keeps_the_last_answer_and_that_of_an_agent_before() {
        let mut known = Names::default();
        known.insert("db.example", [address(1)], None);
        let (asker, resolver) = asking(known);
        let name = || "db.example".to_owned();
        let addresses = || asker.names().answer("db.example").expect("an answer").addresses.clone();
        assert!(resolver.note(name(), Err("timed out".to_owned())), "the first failure is told");
        assert_eq!(addresses(), [address(1)]);
        assert!(!resolver.note(name(), Err("timed out".to_owned())), "the second is not");
        assert!(resolver.note(name(), Ok((vec![address(2)], TTL_MIN))));
        assert_eq!(addresses(), [address(2)]);
        assert!(!resolver.note(name(), Ok((vec![address(2)], TTL_MAX))), "equal answers");
        assert!(resolver.note(name(), Err("refused".to_owned())));
        assert_eq!(addresses(), [address(2)]);
        let state = asker.states().remove(0);
        assert_eq!(state.problem.as_deref(), Some("refused"));
        assert!(state.failing_since.is_some());
    }
}
