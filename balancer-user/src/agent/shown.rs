//! What the agent shows to Prometheus of itself (docs/metrics.md).

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::warn;

use super::{AgentError, state::AgentState, system};
use crate::{
    compile::Tables,
    metrics::{BACKENDS_MAX, CARRIED_FILE, Exporter, Health, Outcome, Proxied},
    node::Node,
    policy::PolicySet,
    proxy::{Counted, Counters},
    resolve::Resolved,
};

/// The exporter, where the configuration asks for one.
#[derive(Clone, Default)]
pub(super) struct Shown {
    exporter: Option<Exporter>,
    /// Of the HTTP proxy, once there is one.
    counters: Arc<OnceLock<Counters>>,
}

impl Shown {
    /// Shows what `shared` says. `adopted`: a set is live already.
    pub(super) fn new(
        shared: &Arc<watch::Sender<AgentState>>,
        adopted: bool,
    ) -> Result<Self, AgentError> {
        let state = shared.subscribe();
        let counters = Arc::new(OnceLock::<Counters>::new());
        let proxy = Arc::clone(&counters);
        let health = move || Health {
            proxy: proxy.get().map(|counters| proxied(counters.read())),
            ..health(&state.borrow(), adopted)
        };
        let exporter = Exporter::new(BACKENDS_MAX, health)
            .map_err(|error| system("cannot prepare metrics")(std::io::Error::other(error)))?;
        Ok(Self { exporter: Some(exporter), counters })
    }

    /// For the server.
    pub(super) fn exporter(&self) -> Option<&Exporter> {
        self.exporter.as_ref()
    }

    /// The maps were opened, or made.
    pub(super) fn maps(&self, node: &Node) {
        if let (Some(exporter), Some(datapath)) = (&self.exporter, node.datapath_if_open()) {
            exporter.maps(datapath.shared_view());
        }
    }

    /// The proxy has begun, or has before.
    pub(super) fn proxy(&self, counters: Counters) {
        self.counters.get_or_init(|| counters);
    }

    /// Takes over the counts of an earlier agent.
    pub(super) fn restore(&self, node: &Node) {
        let Some(exporter) = &self.exporter else { return };
        let restored = match node.kept(CARRIED_FILE) {
            Ok(Some(bytes)) => exporter.restore(&bytes).map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = restored {
            warn!(file = CARRIED_FILE, error, "metrics: counts of earlier sets are lost");
        }
    }

    /// Keeps what the next agent takes over; without `wait` the next time, if a page is just
    /// being made.
    pub(super) fn keep(&self, node: &Node, wait: bool) {
        let Some(exporter) = &self.exporter else { return };
        let kept = match exporter.carried(wait) {
            Ok(Some(bytes)) => node.keep(CARRIED_FILE, &bytes).map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            warn!(file = CARRIED_FILE, error, "metrics: counts of earlier sets cannot be kept");
        }
    }

    /// A publish ended; `set` and what became of it is live where it did not fail.
    pub(super) fn publish(
        &self,
        ended: Ended,
        set: &PolicySet,
        resolved: &Resolved,
        tables: &Tables,
    ) {
        let Some(exporter) = &self.exporter else { return };
        let Ended { before, now, times, since } = ended;
        let flipped = before != now;
        exporter.published(match times {
            None => Outcome::Failed,
            Some(_) if !flipped => Outcome::Unchanged,
            Some((flip, grace)) => Outcome::Changed {
                change: since.map(|since| since.elapsed().saturating_sub(grace)),
                flip,
                grace,
            },
        });
        // It may have failed after its flip.
        if let Some(epoch) = now.filter(|_| flipped || times.is_some()) {
            exporter.live(epoch, set, resolved, tables);
        }
    }
}

/// How a publish ended.
pub(super) struct Ended {
    /// Epoch before it.
    pub(super) before: Option<u64>,
    /// Epoch after it.
    pub(super) now: Option<u64>,
    /// What flip and grace took; `None`: it failed.
    pub(super) times: Option<(Duration, Duration)>,
    /// When the first event came that led to it.
    pub(super) since: Option<Instant>,
}

fn proxied(counted: Counted) -> Proxied {
    let Counted { refused, connections, requests, reals_used, reals_idle } = counted;
    let refused = refused.into_iter().map(|(cause, number)| (cause.name(), number)).collect();
    Proxied { refused, connections, requests, reals_used, reals_idle }
}

fn health(state: &AgentState, adopted: bool) -> Health {
    let unreadable = state.paths.iter().filter(|path| path.problem.is_some()).count();
    let unresolved = state.names.iter().filter(|name| name.problem.is_some()).count();
    let attached: usize = state.interfaces.iter().map(|pattern| pattern.attached.len()).sum();
    let refusing: usize = state.interfaces.iter().map(|pattern| pattern.problems.len()).sum();
    let live = adopted || state.publish.is_some();
    Health {
        not_ready: (!live).then(|| "no set is live yet".to_owned()),
        invalid_since: state.set.broken_since.filter(|_| !state.set.good),
        problems: state.set.problems_total,
        last_publish: state.publish.as_ref().map(|publish| publish.at),
        refused: state.counts.refused,
        watched: state.paths.len() - unreadable,
        unreadable,
        resolved: state.names.len() - unresolved,
        unresolved,
        // Ingress and egress of each.
        links_wanted: 2 * (attached + refusing),
        links_attached: 2 * attached,
        restart_needed: state.restart_for.len(),
        proxy: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::state::{NameState, PathState, PatternState, SetState};

    #[test]
    fn broken_files_missing_paths_and_failing_names_are_shown() {
        let problem = Some("no such directory".to_owned());
        let state = AgentState {
            set: SetState { broken_since: Some(7.5), problems_total: 3, ..SetState::default() },
            paths: vec![PathState::default(), PathState { problem, ..PathState::default() }],
            interfaces: vec![PatternState {
                attached: vec!["eth0".into(), "eth1".into()],
                problems: vec!["eth2 is busy".into()],
                ..PatternState::default()
            }],
            names: vec![NameState { problem: Some("refused".into()), ..NameState::default() }],
            ..AgentState::default()
        };
        let shown = health(&state, true);
        let expected = Health {
            invalid_since: Some(7.5),
            problems: 3,
            watched: 1,
            unreadable: 1,
            unresolved: 1,
            links_wanted: 6,
            links_attached: 4,
            ..Health::default()
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn ready_is_who_has_a_live_set_be_it_an_adopted_one() {
        let state = AgentState::default();
        assert_eq!(health(&state, false).not_ready.as_deref(), Some("no set is live yet"));
        assert_eq!(health(&state, true).not_ready, None);
        let state = AgentState { publish: Some(Default::default()), ..state };
        assert_eq!(health(&state, false).not_ready, None);
    }
}
