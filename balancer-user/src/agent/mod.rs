//! The node agent: keeps the live set true to files, interfaces, routes and names.
//!
//! ```text
//! files ─┐
//! links ─┤
//! routes ┤                     quiet moment        one worker
//! rules ─┼─> bell (causes) ──> loop ────────────> writer ──> node ──> maps
//! names ─┤                      │                    │
//! timers ┘                      └─> service manager  └─> state ──> status, metrics
//! ```
//!
//! Belongs here: what is watched, when something is done, what is said and told. What is done is
//! the room `node`'s, the same as `load` does. One loop hears of everything, and one worker
//! writes: nothing is ever written by two. Ending the agent leaves the datapath as it is. What must be
//! watched is a lease: with `forwarding: auto` the stack routes soon after nobody looks any more.
#![forbid(unsafe_code)]

use std::{
    io,
    net::Shutdown,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};
use tracing::{error, info, warn};

use self::{
    bell::{Bell, Cause, Causes},
    due::Due,
    files::Files,
    requests::Requests,
    shown::Shown,
    supervisor::Supervisor,
    take_over::{Door, Predecessor},
    writer::{Job, Writer},
};
use crate::{
    kernel::passed::{self, Named},
    metrics,
    node::{Node, NodeError},
    settings::Settings,
};

mod bell;
mod drain;
mod due;
mod files;
mod hops;
mod interfaces;
mod log;
mod names;
mod network;
mod privileges;
mod problems;
mod reload;
mod remembered;
mod requests;
mod shown;
mod stamp;
pub mod state;
mod supervisor;
mod take_over;
mod writer;

/// What looks for changes of files that no event told of.
const POLL: Duration = Duration::from_secs(10);
/// What is no longer named is retired that often.
const SWEEP: Duration = Duration::from_secs(15);
/// Rules of a firewall and connections of conntrack are looked for that often.
const RULES: Duration = Duration::from_secs(2);
/// A publish that takes longer is taken for stuck: the service manager no longer hears of us.
const STUCK: Duration = Duration::from_secs(120);

/// How an agent begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration, read and free of what cannot be carried out.
    pub settings: Settings,
    /// The file that it was read from; changes of it are followed.
    pub config: Option<PathBuf>,
    /// The pin directory.
    pub bpffs: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// Colours in the log.
    pub colours: bool,
    /// The place of an agent that runs is taken.
    pub take_over: bool,
}

/// Why an agent does not begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The right to write, the state directory, or the kernel.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Another agent keeps its place.
    #[error("cannot take over from the agent that runs ({agent})")]
    TakeOver {
        /// Its process, or its socket.
        agent: String,
        /// Why not.
        source: io::Error,
    },
    /// A system call.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::System { doing, source }
}

/// Runs an agent until it is told to stop.
///
/// # Errors
/// It cannot begin; once it has, it goes on whatever happens.
pub fn run(start: Start) -> Result<(), AgentError> {
    log::begin(start.settings.log, start.colours);
    let mut given =
        passed::inherited().map_err(system("cannot take what the service manager kept"))?;
    let mut predecessor = None;
    if start.take_over {
        match take_over::ask(&start.state, &start.bpffs)? {
            // What it uses is what counts.
            Some((agent, listeners)) => (predecessor, given) = (Some(agent), listeners),
            None => info!("no agent is there to take over from"),
        }
    }
    let mut node = match &predecessor {
        Some(agent) => agent.open(&start.bpffs, &start.state)?,
        None => Node::open(&start.bpffs, &start.state)?,
    };
    // Open what is pinned while that is still allowed; see `privileges`.
    let adopted = node.datapath()?.map(|datapath| datapath.epoch());
    let reduced = privileges::reduce();
    let config = start.config.as_ref().map(|path| path.display().to_string());
    info!(
        pid = std::process::id(),
        config,
        bpffs = %start.bpffs.display(),
        state = %start.state.display(),
        "the agent begins"
    );
    match adopted {
        Some(epoch) => info!(epoch, "what is pinned is adopted"),
        None => info!("nothing is loaded yet"),
    }
    info!(kept = reduced.kept.join(","), "capabilities are reduced");
    for problem in &reduced.problems {
        warn!("capabilities cannot be reduced: {problem}");
    }
    let mut state = state::AgentState::begin(config);
    state.capabilities = reduced.kept;
    let (shared, _) = watch::channel(state);
    let shared = Arc::new(shared);
    let shown = match start.settings.metrics {
        Some(_) => Shown::new(&shared, adopted.is_some_and(|epoch| epoch > 0))?,
        None => Shown::default(),
    };
    shown.maps(&node);
    shown.restore(&node);
    // One thread for the loop and one that writes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("balancer-writer")
        .build()
        .map_err(system("cannot start the agent's runtime"))?;
    runtime.block_on(serve(start, node, (given, predecessor), shared, shown))
}

async fn serve(
    start: Start,
    node: Node,
    (given, predecessor): (Named, Option<Predecessor>),
    shared: Arc<watch::Sender<state::AgentState>>,
    shown: Shown,
) -> Result<(), AgentError> {
    let bell = Arc::new(Bell::default());
    let files = Files::new(Arc::clone(&bell), start.config.clone())
        .map_err(|error| system("cannot watch files")(io::Error::other(error)))?;
    // Heard before the first look: nothing falls in between.
    let network =
        network::listen().map_err(system("cannot listen to the kernel's network news"))?;
    let rules = network::listen_to_rules().map_err(system("cannot listen to news of nftables"))?;
    let catch = |kind| signal(kind).map_err(system("cannot catch signals"));
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let mut hangup = catch(SignalKind::hangup())?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(network::follow(network, Arc::clone(&bell)));
    if let Some(rules) = rules {
        tasks.spawn(network::follow_rules(rules, Arc::clone(&bell)));
    }
    tasks.spawn(ring_every(RULES, Cause::Rules, Arc::clone(&bell)));
    tasks.spawn(ring_every(POLL, Cause::Poll, Arc::clone(&bell)));
    tasks.spawn(ring_every(SWEEP, Cause::Sweep, Arc::clone(&bell)));
    if let (Some(address), Some(exporter)) = (start.settings.metrics, shown.exporter().cloned()) {
        tasks.spawn(async move { match metrics::serve(address, exporter).await {} });
    }

    let known = node.live_names()?.unwrap_or_default();
    let (asker, resolver) = names::asking(known);
    tasks.spawn(resolver.follow(Arc::clone(&bell)));

    let mut supervisor = Supervisor::new();
    let mut writer =
        Writer::new(node, start.settings, start.config, files, asker, Arc::clone(&shared), shown);
    writer.requests = Requests::new(given);
    tasks.spawn(hops::follow(writer.maps()));
    let first = Job { causes: Causes::of(&[Cause::Files, Cause::Links]), since: None };
    let (mut writer, begun) = spawn(writer, first).await.map_err(ended)?;
    writer.requests.close_unused();
    match begun {
        // Other policies may fit; the rest is for a person to mend.
        Err(error) if !matches!(error, NodeError::Capacity { .. } | NodeError::OneWay { .. }) => {
            return Err(error.into());
        }
        _ => {}
    }
    // Whoever is ready can be asked.
    let mut door = Door::open(&start.state, &start.bpffs)
        .inspect_err(|error| warn!(%error, "no other agent can take over from this one"))
        .ok();
    let mut told = status(&shared);
    supervisor.ready(&told);
    if let Some(agent) = predecessor {
        agent.serves();
    }

    let mut due = Due::default();
    let mut idle = Some(writer);
    let mut busy: Option<(Instant, JoinHandle<Done>)> = None;
    let mut reloading = false;
    let mut alive = supervisor.alive_every().map(interval);
    let (stopped_by, successor) = loop {
        let at = due.at().filter(|_| idle.is_some());
        tokio::select! {
            causes = bell.wait() => {
                if causes.has(Cause::Configuration) && !reloading {
                    reloading = true;
                    supervisor.reloading();
                }
                due.note(causes, Instant::now());
            }
            () = sleep_until(at) => {
                let (causes, since) = due.take();
                busy = idle
                    .take()
                    .map(|writer| (Instant::now(), spawn(writer, Job { causes, since })));
            }
            done = finished(&mut busy) => {
                busy = None;
                let (writer, _) = done.map_err(ended)?;
                idle = Some(writer);
                let now = status(&shared);
                if reloading && !due.has(Cause::Configuration) {
                    reloading = false;
                    supervisor.ready(&now);
                } else if now != told {
                    supervisor.status(&now);
                }
                told = now;
            }
            () = tick(&mut alive) => {
                if busy.as_ref().is_some_and(|(since, _)| since.elapsed() > STUCK) {
                    error!("a publish does not come to its end");
                } else {
                    supervisor.alive();
                }
            }
            _ = hangup.recv() => bell.ring(Cause::Configuration),
            successor = Door::successor(&mut door) => break ("a successor", Some(successor)),
            _ = terminate.recv() => break ("SIGTERM", None),
            _ = interrupt.recv() => break ("SIGINT", None),
        }
    };
    info!(by = stopped_by, "the agent stops; the datapath goes on");
    supervisor.stopping();
    // A publish under way comes to its end: half of one would be left to the next writer.
    if let Some((_, work)) = busy {
        idle = Some(work.await.map_err(ended)?.0);
    }
    let Some(mut writer) = idle else { return Ok(()) };
    writer.shown.keep(&writer.node, true);
    // While nobody else has made one in its place.
    drop(door);
    let Some(successor) = successor else {
        let stop = move || writer.requests.stop(&mut writer.node);
        return tokio::task::spawn_blocking(stop).await.map_err(ended);
    };
    // The port of metrics is free, and the right to write nobody's, before it is told.
    tasks.shutdown().await;
    let mut requests = std::mem::take(&mut writer.requests);
    drop(writer);
    let end = successor.end().map_err(system("cannot hold on to the successor"))?;
    let mut leave = tokio::task::spawn_blocking(move || {
        if let Err(error) = successor.give(requests.listeners()) {
            error!(%error, "the agent that was to take over does not; `l7_fallback` holds");
        }
        requests.leave();
    });
    tokio::select! {
        left = &mut leave => left.map_err(ended),
        _ = terminate.recv() => {
            end.shutdown(Shutdown::Both).map_err(system("cannot part with the successor"))?;
            leave.await.map_err(ended)
        }
    }
}

type Done = (Writer, Result<(), NodeError>);

fn spawn(mut writer: Writer, job: Job) -> JoinHandle<Done> {
    tokio::task::spawn_blocking(move || {
        let done = writer.work(job);
        (writer, done)
    })
}

/// The writer panicked: what it remembers is not to be trusted, and the next agent reads it anew.
fn ended(error: tokio::task::JoinError) -> AgentError {
    system("the writer has ended")(io::Error::other(error))
}

async fn finished(
    busy: &mut Option<(Instant, JoinHandle<Done>)>,
) -> Result<Done, tokio::task::JoinError> {
    match busy {
        Some((_, work)) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn interval(every: Duration) -> time::Interval {
    let mut interval = time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<time::Interval>) {
    match interval {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}

async fn ring_every(every: Duration, cause: Cause, bell: Arc<Bell>) {
    let mut interval = interval(every);
    // The first tick comes at once.
    interval.tick().await;
    loop {
        interval.tick().await;
        bell.ring(cause);
    }
}

/// One line for the service manager.
fn status(shared: &watch::Sender<state::AgentState>) -> String {
    let state = shared.borrow();
    let live = match &state.publish {
        Some(publish) => {
            format!("epoch {}: {} VIPs, {} reals", publish.epoch, publish.vips, publish.reals)
        }
        None => "nothing published yet".to_owned(),
    };
    match state.set.problems.first() {
        Some(problem) if !state.set.good => {
            format!("{live}; the files are not carried out: {problem}")
        }
        _ => live,
    }
}
