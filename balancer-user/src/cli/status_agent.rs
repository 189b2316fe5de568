//! What `status` says of the agent: from the file that it keeps, without asking it.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{failure::Failure, inputs};
use crate::{
    agent::state::{AgentState, STATE_FILE},
    store::Store,
};

/// The agent of these directories.
#[derive(Serialize)]
pub(super) struct AgentLine {
    /// It runs now. False: the rest is what it told last.
    pub(super) running: bool,
    #[serde(flatten)]
    pub(super) state: AgentState,
}

/// `None`: no agent ever ran here.
pub(super) fn read(state: &std::path::Path) -> Result<Option<AgentLine>, Failure> {
    let kept =
        Store::open(state).and_then(|store| store.kept(STATE_FILE)).map_err(inputs::store)?;
    let Some(bytes) = kept else { return Ok(None) };
    let path = state.join(STATE_FILE);
    let state = AgentState::from_bytes(&bytes).map_err(|error| {
        Failure::system(error, format!("{} is damaged", path.display()))
            .hint(format!("remove it; the agent writes it anew\nrm {}", path.display()))
    })?;
    Ok(Some(AgentLine { running: state.alive(), state }))
}

impl AgentLine {
    /// Lines below the title `Agent`.
    pub(super) fn lines(&self) -> Vec<String> {
        let state = &self.state;
        let mut lines = Vec::new();
        if self.running {
            let config = state.config.as_deref().unwrap_or("no configuration file");
            lines.push(format!(
                "pid {}, version {}, since {}, {config}",
                state.pid,
                state.version,
                ago(state.since)
            ));
        } else {
            lines.push(format!(
                "not running (pid {} has ended); what is loaded goes on without it",
                state.pid
            ));
        }
        if let Some(publish) = &state.publish {
            lines.push(format!(
                "last publish: epoch {}, {}; flip {} ms, grace {} ms",
                publish.epoch,
                ago(publish.at),
                publish.flip_ms,
                publish.grace_ms
            ));
        }
        lines.push(match (state.set.good, state.set.broken_since) {
            (true, _) => "policies: what the files say is live".to_owned(),
            (false, Some(since)) => format!(
                "policies: NOT what the files say, since {}; the last good set is live",
                ago(since)
            ),
            (false, None) => "policies: none carried out yet".to_owned(),
        });
        lines.extend(state.set.problems.iter().take(SHOWN).map(|problem| format!("  {problem}")));
        let more = state.set.problems_total.saturating_sub(state.set.problems.len().min(SHOWN));
        if more > 0 {
            lines.push(format!("  and {more} more; see the log of the agent"));
        }
        lines.extend(state.paths.iter().map(|path| match &path.problem {
            Some(problem) => format!("watching {}: {problem}", path.path),
            None => format!("watching {}", path.path),
        }));
        for pattern in &state.interfaces {
            lines.push(match pattern.attached.len() {
                0 => format!("interfaces {}: none", pattern.pattern),
                _ => format!("interfaces {}: {}", pattern.pattern, pattern.attached.join(", ")),
            });
            lines.extend(pattern.problems.iter().map(|problem| format!("  {problem}")));
        }
        for name in &state.names {
            let addresses: Vec<String> =
                name.addresses.iter().take(SHOWN).map(ToString::to_string).collect();
            let more = name.addresses.len() - addresses.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let addresses =
                if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
            let failing = match (&name.problem, name.failing_since) {
                (Some(problem), Some(since)) => {
                    format!(" (of the last answer; failing since {}: {problem})", ago(since))
                }
                _ => String::new(),
            };
            lines.push(format!("name {}: {addresses}{more}{failing}", name.name));
        }
        if !state.restart_for.is_empty() {
            lines.push(format!("waits for a restart: {}", state.restart_for.join(", ")));
        }
        lines.push(format!("capabilities: {}", state.capabilities.join(", ")));
        lines
    }
}

/// Of a list; the whole is in `-o json`.
const SHOWN: usize = 5;

/// `12 s ago`.
fn ago(at: f64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = (now.as_secs_f64() - at).max(0.0) as u64;
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
