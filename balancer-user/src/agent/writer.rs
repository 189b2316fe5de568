//! The one that writes: what a cause asks for, in an order in which each step can use the last.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::{
    bell::{Cause, Causes},
    drain::Draining,
    files::Files,
    interfaces::Interfaces,
    names::Asker,
    problems::{Broken, Said},
    requests::Requests,
    shown::{Ended, Shown},
    state::{self, AgentState, Problem, PublishState, SetState},
};
use crate::{
    compile::Tables,
    kernel::{Datapath, Recount, View},
    node::{Node, NodeError, Sending, Wanted},
    policy::{Edits, PolicySet, ReadOptions, Reader, Reading, Report, Texts},
    resolve::{self, Change, Resolution, ResolveSettings, VipAssignments},
    settings::Settings,
};

mod forwarding;
mod snat;
mod tell;

/// How long a set waits for names that nobody has asked for yet.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) causes: Causes,
    /// When the first of them was noticed.
    pub(super) since: Option<Instant>,
}

/// Holds whatever is written, and what was written last.
pub(super) struct Writer {
    pub(super) node: Node,
    settings: Settings,
    /// The configuration file, and what the command line says besides.
    config: Option<PathBuf>,
    files: Files,
    names: Asker,
    shared: Arc<watch::Sender<AgentState>>,
    pub(super) shown: Shown,
    pub(super) requests: Requests,
    interfaces: Interfaces,
    maps: watch::Sender<Option<Arc<View>>>,
    /// The last good set, with what it was compiled to.
    good: Option<Good>,
    /// What the last good set came to. `None`: what it came to is not at hand.
    resolution: Option<Resolution>,
    /// What was read last, and whether it is to be tried again without a change.
    texts: Texts,
    again: bool,
    reader: Reader,
    /// What differs between the last good set and what was read last.
    edits: Edits,
    /// Names that the set gives in place of addresses.
    wanted: BTreeSet<String>,
    assigned: Option<VipAssignments>,
    said: Said,
    /// Warnings of the last tables.
    warned: Vec<String>,
    draining: Draining,
    /// Neither interfaces nor routes have changed since the last publish.
    interfaces_as_before: bool,
    no_policies_said: bool,
    /// How packets are sent on.
    sending: Option<Sending>,
    /// Why that could not be judged, as said last.
    unjudged: Option<String>,
    /// What was said of source translation last.
    snat_said: BTreeSet<String>,
}

/// A set that is live.
struct Good {
    set: PolicySet,
    report: Report,
    /// `None`: they were changed for a set that did not become live.
    tables: Option<Tables>,
}

impl Writer {
    pub(super) fn new(
        node: Node,
        settings: Settings,
        config: Option<PathBuf>,
        files: Files,
        names: Asker,
        shared: Arc<watch::Sender<AgentState>>,
        shown: Shown,
    ) -> Self {
        let maps = node.datapath_if_open().map(Datapath::shared_view);
        Self {
            maps: watch::Sender::new(maps),
            node,
            settings,
            config,
            files,
            names,
            shared,
            shown,
            requests: Requests::default(),
            interfaces: Interfaces::default(),
            good: None,
            resolution: None,
            texts: Texts::new(),
            again: false,
            reader: Reader::new(ReadOptions::default()),
            edits: Edits::NONE,
            wanted: BTreeSet::new(),
            assigned: None,
            said: Said::default(),
            warned: Vec::new(),
            draining: Draining::default(),
            interfaces_as_before: false,
            no_policies_said: false,
            sending: None,
            unjudged: None,
            snat_said: BTreeSet::new(),
        }
    }

    /// The maps, once there are some.
    pub(super) fn maps(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.maps.subscribe()
    }

    /// Does what the causes ask for. Errors are said, kept in the state, and leave everything
    /// that runs as it is.
    ///
    /// # Errors
    /// Only at the first call, and only what no change of a file, an interface or a name would
    /// mend: the caller gives up.
    pub(super) fn work(&mut self, job: Job) -> Result<(), NodeError> {
        let Job { causes, since } = job;
        if causes.is_only(Cause::Rules) {
            self.send_on(false);
            return Ok(());
        }
        let mut read = causes.has(Cause::Files);
        // Addresses of interfaces come and go with their routes.
        let mut links = causes.has(Cause::Links) || causes.has(Cause::Routes);
        let mut publish = causes.has(Cause::Routes) || causes.has(Cause::Names);
        if causes.has(Cause::Configuration) && self.reload() {
            (read, links, publish) = (true, true, true);
        }
        self.files.follow(&self.settings.policies);
        let other = self.files.look();
        read |= other && causes.has(Cause::Poll);
        read |= self.again && causes.has(Cause::Sweep);
        if links {
            publish |= self.attach();
        }
        self.interfaces_as_before &= !publish;
        let mut failure = None;
        let mut tried = false;
        if read {
            match self.read(publish) {
                Some(Ok(Reading { set, report })) => {
                    tried = true;
                    failure = self.try_set(set, report, since).err();
                }
                Some(Err(broken)) => self.refuse(broken),
                None => {}
            }
        }
        // The last good set again: names, routes and times are not in the files.
        if !tried && (publish || causes.has(Cause::Sweep)) {
            self.again(publish, since);
        }
        self.send_on(true);
        self.look_at_snat();
        self.tell();
        self.shown.keep(&self.node, false);
        failure.map_or(Ok(()), Err)
    }

    /// Attaches to what has come. True: expected interfaces of sources may be others now.
    fn attach(&mut self) -> bool {
        let Settings { attach, snat_ports, .. } = &self.settings;
        match self.interfaces.follow(&mut self.node, attach, *snat_ports) {
            Ok((changed, states)) => {
                self.shared.send_modify(|state| state.interfaces = states);
                changed
            }
            Err(error) => {
                error!(%error, "cannot look after interfaces");
                false
            }
        }
    }

    /// What stands in the files; `None` where it is what was tried already.
    fn read(&mut self, anyway: bool) -> Option<Result<Reading, Broken>> {
        if self.settings.policies.is_empty() {
            if !std::mem::replace(&mut self.no_policies_said, true) {
                warn!("the configuration names no policies: nothing is carried out");
            }
            return None;
        }
        let begun = Instant::now();
        self.shared.send_modify(|state| state.counts.reads += 1);
        let texts = match self.files.read() {
            Ok(texts) => texts,
            Err(error) => {
                // Whatever comes next is to be looked at, be it what was there before.
                self.texts.clear();
                return Some(Err(Broken::input(&error)));
            }
        };
        if texts == self.texts && !self.again && !anyway {
            debug!(files = texts.len(), "the files are as they were");
            return None;
        }
        self.texts = texts.clone();
        let (reading, edits) = self.reader.read(texts);
        self.edits = std::mem::replace(&mut self.edits, Edits::NONE).then(edits);
        debug!(files = self.texts.len(), ms = millis(begun.elapsed()), "read");
        if reading.report.is_empty() {
            let object = self.settings.policies.iter().map(|path| path.display().to_string());
            return Some(Err(Broken::one(Problem {
                object: object.collect::<Vec<_>>().join(", "),
                message: "no resource is there".to_owned(),
                hint: Some("to carry out nothing, stop the agent and `balancer unload`".to_owned()),
                ..Problem::default()
            })));
        }
        Some(match Broken::report(&reading.report) {
            Some(broken) => Err(broken),
            None => Ok(reading),
        })
    }

    /// Makes a set that was read the live one.
    fn try_set(
        &mut self,
        set: PolicySet,
        report: Report,
        since: Option<Instant>,
    ) -> Result<(), NodeError> {
        let mut before = self.good.as_mut().and_then(|good| good.tables.take());
        // Of a set that fails nothing is kept but what it differs by.
        let outcome = self.carry_out(&set, &report, &self.edits.clone(), &mut before, since);
        if let (Err(_), Some(good)) = (&outcome, &mut self.good) {
            good.tables = before;
        }
        match outcome {
            Ok(tables) => {
                self.again = false;
                self.edits = Edits::NONE;
                self.good = Some(Good { set, report, tables: Some(tables) });
                Ok(())
            }
            Err(Failed::Broken(broken)) => {
                self.again = broken.again;
                self.refuse(broken);
                Ok(())
            }
            Err(Failed::Node(error)) => {
                let broken = Broken::node(&error);
                self.again = broken.again;
                self.refuse(broken);
                Err(error)
            }
        }
    }

    /// `edits`: what makes the set of the last good one, whose tables are those `before`. A small
    /// change is made in them; they are gone then, also where it does not become live.
    fn carry_out(
        &mut self,
        set: &PolicySet,
        report: &Report,
        edits: &Edits,
        before: &mut Option<Tables>,
        since: Option<Instant>,
    ) -> Result<Tables, Failed> {
        let begun = Instant::now();
        let settings = self.settings.clone();
        let assigned = match &self.assigned {
            Some(assigned) => assigned.clone(),
            None => self.node.assigned()?,
        };
        if self.resolution.is_none() || !edits.leave_names() {
            self.wanted = resolve::host_names(set);
        }
        self.names.want(self.wanted.clone(), &settings.dns_servers, ANSWERS_WITHIN);
        let resolve_settings =
            ResolveSettings { names: self.names.names(), ..settings.resolve_settings(assigned) };
        let mut change = Change::Whole;
        let resolution = match self.resolution.take() {
            Some(mut resolution) => {
                change = resolution.follow(set, &resolve_settings, edits);
                resolution
            }
            None => Resolution::new(set, &resolve_settings),
        };
        let resolved = resolution.resolved();
        let mut report = report.clone();
        report.merge(&resolved.diagnostics);
        if let Some(broken) = Broken::report(&report) {
            return Err(Failed::Broken(broken));
        }
        let wanted = Wanted {
            set,
            resolve_settings: &resolve_settings,
            resolved,
            settings: &settings,
            interfaces_as_before: self.interfaces_as_before,
        };
        let mut patch = None;
        if let (Change::Parts(parts), Some(tables)) = (&change, before.as_mut()) {
            patch = self.node.patch(tables, &wanted, parts)?;
        }
        let mut tables = match before.take_if(|_| patch.is_some()) {
            Some(tables) => tables,
            None => self.node.compile(&wanted)?,
        };
        debug!(ms = millis(begun.elapsed()), small = patch.is_some(), "resolved and compiled");
        if self.node.make(&settings)? {
            info!(bpffs = %self.node.bpffs().display(), "programs and maps are made");
            self.shown.maps(&self.node);
            self.maps.send_replace(self.node.datapath_if_open().map(Datapath::shared_view));
            // With nothing published yet the programs let every packet pass.
            self.attach();
            tables = self.node.compile(&wanted)?;
        }
        let (patch, inventory) = (patch.as_ref(), &resolved.inventory);
        let deadline = self.settings.drain.deadline;
        self.draining.expire(&mut self.node, &mut tables, patch, inventory, deadline);
        let followed = self.requests.follow(&mut self.node, &settings, resolved)?;
        if let Some(counters) = self.requests.counters() {
            self.shown.proxy(counters);
        }
        let prepared = begun.elapsed();
        let before = self.node.epoch();
        let published = self.node.publish(&tables, patch, &wanted);
        let times = published.as_ref().ok().map(|(_, done, _)| (done.flip, done.grace));
        let ended = Ended { before, now: self.node.epoch(), times, since };
        self.shown.publish(ended, set, resolved, &tables);
        if published.is_err() {
            self.assigned = None;
            self.requests.undo(followed);
        }
        self.interfaces_as_before = published.is_ok();
        let (difference, published, left) = published?;
        self.assigned = Some(resolved.assigned.clone());
        self.resolution = Some(resolution);
        if let Some(error) = left {
            warn!(%error, "records of earlier sets are left");
        }
        self.said.report(&report);
        if self.warned != tables.warnings {
            tables.warnings.iter().for_each(|warning| warn!("{warning}"));
            self.warned.clone_from(&tables.warnings);
        }
        let noticed_to_flip_ms = since.map(|since| {
            let before = begun.saturating_duration_since(since);
            millis(before + prepared + published.flip)
        });
        let news = PublishState {
            epoch: published.epoch,
            at: state::now(),
            noticed_to_flip_ms,
            flip_ms: millis(published.flip),
            grace_ms: millis(published.grace),
            vips: tables.vips.len(),
            sources: tables.sources.len(),
            routes: tables.routes.len(),
            reals: tables.reals.len(),
        };
        let flipped = before != Some(published.epoch);
        if flipped {
            info!(
                epoch = news.epoch,
                vips = news.vips,
                sources = news.sources,
                routes = news.routes,
                reals = news.reals,
                vips_added = difference.vips_added.len(),
                vips_removed = difference.vips_removed.len(),
                tables_written = published.written.tables,
                flip_ms = news.flip_ms,
                grace_ms = news.grace_ms,
                noticed_to_flip_ms,
                "published"
            );
        } else {
            debug!(epoch = news.epoch, "what is live already");
        }
        self.shared.send_modify(|state| {
            if !state.set.good && state.set.ever {
                info!(epoch = news.epoch, "the set is good again");
            }
            state.set = SetState { good: true, ever: true, ..SetState::default() };
            if flipped {
                state.counts.publishes += 1;
                state.counts.flip_ms_sum += news.flip_ms;
                state.counts.grace_ms_sum += news.grace_ms;
            }
            if flipped || state.publish.is_none() {
                state.publish = Some(news);
            }
        });
        Ok(tables)
    }

    /// The last good set once more. With `anew` it is resolved again; else only what has run out
    /// is retired.
    fn again(&mut self, anew: bool, since: Option<Instant>) {
        let Some(good) = self.good.take() else { return };
        let Good { set, report, tables } = good;
        let due = self.draining.due(self.settings.drain.deadline);
        let outcome = match &tables {
            Some(tables) if !anew && !due => {
                self.node.sweep(tables, &self.settings).map(|Recount { entries, reals }| {
                    if reals > 0 {
                        debug!(entries, reals, "live connections were counted anew");
                    }
                    None
                })
            }
            _ => self.carry_out_again(&set, &report, since),
        };
        let tables = match outcome {
            Ok(new) => new.or(tables),
            Err(error) => {
                let broken = Broken::node(&error);
                for problem in &broken.problems {
                    error!(hint = problem.hint, "the live set is not kept up: {}", problem.message);
                }
                tables
            }
        };
        self.good = Some(Good { set, report, tables });
    }

    /// As [`Writer::carry_out`], but what the state says of the files stays.
    fn carry_out_again(
        &mut self,
        set: &PolicySet,
        report: &Report,
        since: Option<Instant>,
    ) -> Result<Option<Tables>, NodeError> {
        let said = self.shared.borrow().set.clone();
        let outcome = self.carry_out(set, report, &Edits::NONE, &mut None, since);
        match outcome {
            Ok(tables) => {
                self.shared.send_modify(|state| state.set = said);
                Ok(Some(tables))
            }
            Err(Failed::Broken(broken)) => {
                broken.say();
                Ok(None)
            }
            Err(Failed::Node(error)) => Err(error),
        }
    }
}

/// Why a set was not carried out.
enum Failed {
    /// Something is wrong with it.
    Broken(Broken),
    /// It does not fit, or the node refuses.
    Node(NodeError),
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<NodeError> for Failed {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
