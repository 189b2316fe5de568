//! What a guest is told to do, and the lines in which it says how that went. `cargo xtask` and
//! the guest's first process share this file.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where the plan lies in the guest, as JSON.
pub(crate) const PLAN: &str = "/guest/plan.json";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Module files in the order to load them.
    pub(crate) modules: Vec<PathBuf>,
    pub(crate) jobs: Vec<Job>,
}

/// A program to run in a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
    /// After so many seconds the guest kills it.
    pub(crate) limit_s: u64,
}

/// A line of the guest itself, among those of its jobs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// The guest is up: its kernel's release.
    Kernel(String),
    Begin(String),
    End {
        job: String,
        end: End,
        seconds: f64,
    },
    /// Every job has ended.
    Done,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
    /// It was over its limit and was killed.
    Limit,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit {status}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Limit => f.write_str("killed at its limit"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(release) => write!(f, "guest: kernel {release}"),
            Self::Begin(job) => write!(f, "guest: begin {job}"),
            Self::End { job, end, seconds } => {
                write!(f, "guest: end {job}: {end} after {seconds:.1} s")
            }
            Self::Done => f.write_str("guest: done"),
        }
    }
}

impl FromStr for Line {
    /// Any other line belongs to a job.
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words = line.strip_prefix("guest: ").ok_or(())?;
        if words == "done" {
            return Ok(Self::Done);
        }
        match words.split_once(' ').ok_or(())? {
            ("kernel", release) => Ok(Self::Kernel(release.into())),
            ("begin", job) => Ok(Self::Begin(job.into())),
            ("end", rest) => {
                let (job, rest) = rest.split_once(": ").ok_or(())?;
                let (end, seconds) = rest.split_once(" after ").ok_or(())?;
                let seconds = seconds.strip_suffix(" s").and_then(|s| s.parse().ok()).ok_or(())?;
                let number = |what| end.strip_prefix(what).and_then(|n: &str| n.parse().ok());
                let end = match (number("exit "), number("signal ")) {
                    (Some(status), _) => End::Exit(status),
                    (_, Some(number)) => End::Signal(number),
                    _ if end == End::Limit.to_string() => End::Limit,
                    _ => return Err(()),
                };
                Ok(Self::End { job: job.into(), end, seconds })
            }
            _ => Err(()),
        }
    }
}
