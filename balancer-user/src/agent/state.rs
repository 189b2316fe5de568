//! What the agent tells about itself: one value, shared with whoever serves it (metrics), and
//! kept as a file beside the other state, so that `status` needs no connection to the agent.

use std::{fs, io, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Name of the file in the state directory.
pub const STATE_FILE: &str = "agent.json";

/// What the agent knows of itself. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentState {
    /// Its process.
    pub pid: u32,
    /// When that process began, in clock ticks since boot (proc_pid_stat(5)): another process
    /// with the same id has another.
    pub started_ticks: u64,
    /// When it began to work.
    pub since: f64,
    /// Version of the binary.
    pub version: String,
    /// The configuration file.
    pub config: Option<String>,
    /// What became of the policies.
    pub set: SetState,
    /// Policy paths.
    pub paths: Vec<PathState>,
    /// Patterns of `attach`.
    pub interfaces: Vec<PatternState>,
    /// Names in policies.
    pub names: Vec<NameState>,
    /// The last set that was published.
    pub publish: Option<PublishState>,
    /// What it has done since it began.
    pub counts: Counts,
    /// Capabilities that it has kept.
    pub capabilities: Vec<String>,
    /// Keys of the configuration whose change waits for a restart.
    pub restart_for: Vec<String>,
}

/// What became of the policies at the last look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetState {
    /// What stands in the files is live. False: the last good set is, or none.
    pub good: bool,
    /// A set was carried out by this process.
    pub ever: bool,
    /// Since when it is not good.
    pub broken_since: Option<f64>,
    /// What is wrong with it; the first of them where there are many.
    pub problems: Vec<Problem>,
    /// How many things are wrong with it.
    pub problems_total: usize,
}

/// Something that keeps the policies in the files from being carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The file, the directory, or whatever it is about.
    pub object: String,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Field of the document.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.object)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if !self.object.is_empty() {
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A policy path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathState {
    /// As configured.
    pub path: String,
    /// What keeps it from being read.
    pub problem: Option<String>,
}

/// A pattern of `attach`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PatternState {
    /// As configured.
    pub pattern: String,
    /// Interfaces that it matches and that are attached to, sorted.
    pub attached: Vec<String>,
    /// Interfaces that it matches and what keeps them from being attached to.
    pub problems: Vec<String>,
}

/// A name in policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameState {
    /// The name.
    pub name: String,
    /// Its addresses at the last answer.
    pub addresses: Vec<std::net::IpAddr>,
    /// What the last question came to, where it failed.
    pub problem: Option<String>,
    /// Since when it fails.
    pub failing_since: Option<f64>,
}

/// A finished publish.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishState {
    /// The epoch.
    pub epoch: u64,
    /// When.
    pub at: f64,
    /// From the first event that led to it until new connections met it.
    pub noticed_to_flip_ms: Option<f64>,
    /// From the beginning of the publish to the flip.
    pub flip_ms: f64,
    /// From the flip until no packet could see the set before.
    pub grace_ms: f64,
    /// VIPs, sources, routes and reals of the set.
    pub vips: usize,
    /// See `vips`.
    pub sources: usize,
    /// See `vips`.
    pub routes: usize,
    /// See `vips`.
    pub reals: usize,
}

/// What the agent has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Sets published that differed from the one before.
    pub publishes: u64,
    /// Sets that were not carried out because something was wrong with them.
    pub refused: u64,
    /// Times that the files were read.
    pub reads: u64,
    /// Sums of the times of all publishes, in milliseconds.
    pub flip_ms_sum: f64,
    /// See `flip_ms_sum`.
    pub grace_ms_sum: f64,
}

impl AgentState {
    /// Of this process, which begins now.
    pub(super) fn begin(config: Option<String>) -> Self {
        let pid = std::process::id();
        Self {
            pid,
            // Without it a state of a dead process may be taken for one of its namesake.
            started_ticks: started_ticks(pid).unwrap_or_default(),
            since: now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config,
            ..Self::default()
        }
    }

    /// The state as its file has it.
    ///
    /// # Errors
    /// It is no such file.
    pub fn from_bytes(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Whether the agent that wrote this is still there.
    pub fn alive(&self) -> bool {
        started_ticks(self.pid).is_ok_and(|ticks| ticks == self.started_ticks)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| (since.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// Field 22 of `/proc/PID/stat`. The second, the name of the program, may hold anything.
fn started_ticks(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("it has no start time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_of_a_living_agent_only_while_its_process_lives() {
        let state = AgentState::begin(None);
        assert!(state.alive());
        let namesake = AgentState { started_ticks: state.started_ticks + 1, ..state.clone() };
        assert!(!namesake.alive());
        let bytes = serde_json::to_vec(&state).expect("JSON");
        assert_eq!(AgentState::from_bytes(&bytes).expect("a state"), state);
    }

    #[test]
    fn a_problem_reads_like_a_message_of_the_compiler() {
        let problem = Problem {
            object: "a.yaml".to_owned(),
            line: Some(3),
            column: Some(5),
            field: "conf".to_owned(),
            message: "needs to be defined".to_owned(),
            hint: None,
        };
        assert_eq!(problem.to_string(), "a.yaml:3:5: conf: needs to be defined");
    }
}
