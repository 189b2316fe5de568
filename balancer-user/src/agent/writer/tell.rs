//! What the writer says of a set that it refuses, of its paths, and of a changed configuration.

use tracing::{error, info, warn};

use super::{
    super::{
        problems::Broken,
        reload,
        state::{self, PathState, SetState},
    },
    Writer,
};

impl Writer {
    /// Reads the configuration file anew. True: something of it is to be applied.
    pub(super) fn reload(&mut self) -> bool {
        let Some(path) = &self.config else { return false };
        let read = match reload::read(path) {
            Ok(read) => read,
            Err(broken) => {
                for problem in &broken.problems {
                    error!(
                        file = problem.object,
                        line = problem.line,
                        column = problem.column,
                        field = problem.field,
                        hint = problem.hint,
                        "the configuration is not applied: {}",
                        problem.message
                    );
                }
                return false;
            }
        };
        let changes = reload::changes(&self.settings, &read);
        for change in changes.iter().filter(|change| !change.live) {
            warn!(
                file = %path.display(),
                key = change.key,
                old = change.old,
                new = change.new,
                "the change of this key waits for a restart of the agent"
            );
        }
        let waiting: Vec<String> = changes
            .iter()
            .filter(|change| !change.live)
            .map(|change| change.key.to_owned())
            .collect();
        self.shared.send_modify(|state| state.restart_for = waiting);
        let mut applied = false;
        for change in changes.iter().filter(|change| change.live) {
            info!(
                file = %path.display(),
                key = change.key,
                old = change.old,
                new = change.new,
                "the configuration has changed"
            );
            applied = true;
        }
        if applied {
            if let Err(error) =
                self.interfaces.let_go(&mut self.node, &self.settings.attach, &read.attach)
            {
                error!(%error, "cannot detach from interfaces that the configuration gave up");
            }
            reload::apply(&mut self.settings, read);
        }
        applied
    }

    /// The set before stays, and everybody is told why.
    pub(super) fn refuse(&mut self, broken: Broken) {
        let same = {
            let state = self.shared.borrow();
            !state.set.good && state.set.problems == broken.problems
        };
        if !same {
            broken.say();
            let live = self.node.epoch();
            match live {
                Some(epoch) => warn!(epoch, "the last good set stays live"),
                None => warn!("there is no good set yet: nothing is carried out"),
            }
        }
        self.shared.send_modify(|state| {
            state.counts.refused += u64::from(!same);
            let since = state.set.broken_since.filter(|_| !state.set.good);
            state.set = SetState {
                good: false,
                ever: state.set.ever,
                broken_since: Some(since.unwrap_or_else(state::now)),
                problems: broken.problems,
                problems_total: broken.total,
            };
        });
    }

    /// Writes the state for `status`.
    pub(super) fn tell(&mut self) {
        let paths = self
            .files
            .paths()
            .into_iter()
            .map(|(path, problem)| PathState { path: path.display().to_string(), problem });
        let paths: Vec<PathState> = paths.collect();
        let old = self.shared.borrow().paths.clone();
        for now in &paths {
            let before = old.iter().find(|before| before.path == now.path);
            match (before.and_then(|before| before.problem.as_ref()), &now.problem) {
                (before, Some(problem)) if before != Some(problem) => {
                    error!(path = now.path, "{problem}; the last good set stays live");
                }
                (Some(_), None) => info!(path = now.path, "is there again"),
                _ => {}
            }
        }
        let names = self.names.states();
        self.shared.send_modify(|state| (state.paths, state.names) = (paths, names));
        let bytes = serde_json::to_vec_pretty(&*self.shared.borrow());
        let kept = bytes.map_err(|error| error.to_string()).and_then(|bytes| {
            self.node.keep(state::STATE_FILE, &bytes).map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            warn!(file = state::STATE_FILE, error, "the state of the agent cannot be kept");
        }
    }
}
