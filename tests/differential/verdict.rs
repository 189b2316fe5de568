//! What becomes of a request at one proxy.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    backend::{BROKEN, MARK},
    cases::Case,
    servers::Server,
};

/// Without a byte for this long, a proxy waits for more.
const QUIET: Duration = Duration::from_millis(1500);
/// Until a backend has written down what came over a connection that is kept.
const BEHIND: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Verdict {
    /// Of all answers, in their order; those with 100 do not count.
    pub(crate) statuses: Vec<String>,
    /// How many of them are the backend's.
    pub(crate) of_backend: usize,
    /// What reached the backend.
    pub(crate) seen: Vec<String>,
    /// The proxy ended the connection.
    pub(crate) ended: bool,
}

impl Verdict {
    /// Sends a case and reads until the proxy ends the connection, or waits for more.
    pub(crate) fn of(server: &Server, case: &Case) -> Result<Self> {
        server.backend.seen();
        let mut stream = TcpStream::connect(server.addr).context("cannot connect")?;
        stream.set_write_timeout(Some(QUIET))?;
        stream.set_read_timeout(Some(QUIET))?;
        // It may have ended the connection before all was sent: what it said is there to be read.
        let _cut = stream.write_all(&case.bytes);
        let mut answers = Vec::new();
        let ended = match stream.read_to_end(&mut answers) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        thread::sleep(BEHIND);
        let answers = String::from_utf8_lossy(&answers);
        let statuses =
            answers.match_indices("HTTP/1.").filter_map(|(at, _)| answers.get(at + 9..at + 12));
        Ok(Self {
            statuses: statuses.filter(|status| *status != "100").map(str::to_owned).collect(),
            of_backend: answers.matches(MARK).count(),
            seen: server.backend.seen(),
            ended,
        })
    }

    /// Why the backend and the proxy do not agree on what was sent.
    pub(crate) fn smuggled(&self) -> Option<String> {
        if let Some(broken) = self.seen.iter().find(|seen| seen.starts_with(BROKEN)) {
            return Some(format!("the backend was sent what is no HTTP: {broken}"));
        }
        (self.seen.len() != self.of_backend).then(|| {
            format!("the backend saw {} requests and answered {}", self.seen.len(), self.of_backend)
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses = self.statuses.join(" ");
        let end = if self.ended { "" } else { ", waits" };
        write!(f, "[{statuses}{end}] {}", self.seen.join(" + "))
    }
}
