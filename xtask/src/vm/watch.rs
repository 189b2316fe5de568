//! A virtual machine as seen from outside: two streams of lines, and a process that may end too
//! early, too late or never.

use std::{
    collections::VecDeque,
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// How many lines of each stream a failure shows.
const SHOWN: usize = 30;
/// How long a guest that panicked or is done may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until its first line of results.
    pub(super) boot: Duration,
    /// Between two lines, of either stream.
    pub(super) silence: Duration,
    /// For everything.
    pub(super) total: Duration,
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// The guest's results, on the program's stdout.
    Results,
    /// The kernel's console and what the emulator itself says, on its stderr.
    Console,
}

/// Why a guest failed, with the last that it said.
#[derive(Debug)]
pub(super) struct Failure {
    why: String,
    results: VecDeque<String>,
    console: VecDeque<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        for (name, lines) in [("results", &self.results), ("console", &self.console)] {
            if lines.is_empty() {
                write!(f, "\n  nothing on the {name}")?;
                continue;
            }
            write!(f, "\n  last lines of the {name}:")?;
            for line in lines {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Runs `command` until its results have the line `end` and it has ended, showing `look` each
/// line of the results as it comes.
///
/// # Errors
/// A [`Failure`] where the guest panics, ends before, or is over one of its limits. By then its
/// process is gone too.
pub(super) fn watch(
    command: &mut Command,
    limits: Limits,
    end: &str,
    mut look: impl FnMut(&str),
) -> Result<()> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Killed(child.context("cannot start the virtual machine")?);
    let (sender, lines) = mpsc::channel();
    let stdout = child.0.stdout.take().context("no stdout")?;
    let stderr = child.0.stderr.take().context("no stderr")?;
    for (stream, from) in [
        (Stream::Results, Box::new(stdout) as Box<dyn Read + Send>),
        (Stream::Console, Box::new(stderr)),
    ] {
        let sender = sender.clone();
        // Not joined: it ends with the process, and a process that inherited the stream and
        // lives on must not hold up the verdict.
        thread::spawn(move || read(from, |line| sender.send((stream, line)).is_ok()));
    }
    drop(sender);

    let mut state = State::new(limits, end);
    while let Err(until) = state.verdict() {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((stream, line)) => {
                if stream == Stream::Results {
                    look(&line);
                }
                state.take(stream, line);
            }
            Err(RecvTimeoutError::Timeout) => state.late(),
            // Both streams are closed, so it has ended or is about to.
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.ended(FAREWELL)?;
                state.gone(status);
            }
        }
    }
    drop(child);
    state.outcome().map_err(Into::into)
}

/// What is known about a guest, and until when more has to come.
struct State<'a> {
    limits: Limits,
    end: &'a str,
    begun: Instant,
    last: Instant,
    results: VecDeque<String>,
    console: VecDeque<String>,
    /// It has said its last line, or panicked: it may take until then to end.
    ending: Option<Instant>,
    done: bool,
    why: Option<String>,
    over: bool,
}

impl<'a> State<'a> {
    fn new(limits: Limits, end: &'a str) -> Self {
        let now = Instant::now();
        Self {
            limits,
            end,
            begun: now,
            last: now,
            results: VecDeque::new(),
            console: VecDeque::new(),
            ending: None,
            done: false,
            why: None,
            over: false,
        }
    }

    /// `Ok` where all is said, or the moment until which the next line has to come.
    fn verdict(&self) -> Result<(), Instant> {
        if self.over {
            return Ok(());
        }
        let pause = if self.results.is_empty() {
            // Messages on the console do not make up for a guest that never begins.
            self.begun + self.limits.boot
        } else {
            self.last + self.limits.silence
        };
        Err(pause.min(self.begun + self.limits.total).min(self.ending.unwrap_or(pause)))
    }

    fn take(&mut self, stream: Stream, line: String) {
        self.last = Instant::now();
        if stream == Stream::Console
            && let Some((_, why)) = line.split_once("Kernel panic - ")
            && self.why.is_none()
        {
            // The trace that follows may be longer than what is kept.
            self.why = Some(format!("its kernel panicked: {why}"));
            self.ending = Some(self.last + FAREWELL);
        }
        if stream == Stream::Results && line == self.end {
            self.done = true;
            self.ending = Some(self.last + FAREWELL);
        }
        let lines = match stream {
            Stream::Results => &mut self.results,
            Stream::Console => &mut self.console,
        };
        lines.push_back(line);
        if lines.len() > SHOWN {
            lines.pop_front();
        }
    }

    fn late(&mut self) {
        self.over = true;
        if self.why.is_some() {
            return;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        self.why = Some(if self.done {
            format!("it was done and did not power off within {} s", FAREWELL.as_secs())
        } else if self.begun.elapsed() >= self.limits.total {
            format!("it was not done after {seconds:.0} s")
        } else if self.results.is_empty() {
            format!("it said nothing for {seconds:.0} s")
        } else {
            let silent = self.last.elapsed().as_secs_f64();
            format!("it hangs: nothing for {silent:.0} s, {seconds:.0} s after its start")
        });
    }

    /// The process has ended, or has at least closed its streams.
    fn gone(&mut self, status: Option<ExitStatus>) {
        self.over = true;
        if self.why.is_some() {
            return;
        }
        let how = match status {
            Some(status) if status.success() && self.done => return,
            Some(status) => format!("{status}"),
            None => "its streams are closed and its process lives on".into(),
        };
        let when = if self.done { "after" } else { "before" };
        self.why = Some(format!("it ended {when} `{}`: {how}", self.end));
    }

    fn outcome(self) -> Result<(), Failure> {
        match self.why {
            Some(why) => Err(Failure { why, results: self.results, console: self.console }),
            None => Ok(()),
        }
    }
}

/// Shows each line to `take`, without what ends it, until it has enough. A last line that was cut
/// short is a line too.
fn read(from: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // A stream that cannot be read has ended, which the watcher sees by itself.
    while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        // A terminal's driver ends lines with both.
        if !take(text.trim_end_matches(['\r', '\n']).to_owned()) {
            return;
        }
        line.clear();
    }
}

/// A process that is killed, by its own id, and waited for when this is dropped.
struct Killed(Child);

impl Killed {
    /// Its status, if it ends within `limit`.
    fn ended(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            match self.0.try_wait()? {
                None if begun.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
                status => return Ok(status),
            }
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        boot: Duration::from_secs(20),
        silence: Duration::from_secs(20),
        total: Duration::from_secs(20),
    };

    /// What becomes of a guest that is this shell script, and what was seen of it meanwhile.
    fn guest(script: &str, limits: Limits) -> (Result<(), String>, Vec<String>) {
        let mut seen = Vec::new();
        let look = |line: &str| seen.push(line.to_owned());
        let outcome = watch(Command::new("sh").args(["-c", script]), limits, "guest: done", look);
        (outcome.map_err(|e| e.to_string()), seen)
    }

    #[test]
    fn guest_that_is_done_and_ends_is_fine() {
        let (outcome, seen) = guest(r"printf 'one\r\nguest: done\r\n'", LIMITS);
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen, ["one", "guest: done"]);
    }

    #[test]
    fn guest_that_ends_too_early_fails_with_its_last_lines() {
        let (outcome, _) = guest("echo one; echo two >&2; exit 3", LIMITS);
        let words = outcome.unwrap_err();
        assert!(words.starts_with("it ended before `guest: done`: exit status: 3"), "{words}");
        assert!(words.contains("results:\n    one"), "{words}");
        assert!(words.contains("console:\n    two"), "{words}");
    }

    #[test]
    fn guest_that_fails_after_its_last_line_is_not_fine() {
        let (outcome, _) = guest("echo guest: done; exit 4", LIMITS);
        assert!(outcome.unwrap_err().starts_with("it ended after `guest: done`: exit status: 4"));
    }

    #[test]
    fn panic_is_found_on_the_console_and_the_rest_of_it_is_read() {
        let script = "echo one; echo '[ 5.7] Kernel panic - not syncing: why' >&2; sleep 0.2; \
                      for n in $(seq 100); do echo trace $n >&2; done";
        let words = guest(script, LIMITS).0.unwrap_err();
        assert!(words.starts_with("its kernel panicked: not syncing: why\n"), "{words}");
        assert!(words.contains("trace 100"), "{words}");
    }

    #[test]
    fn guest_that_hangs_is_killed_after_its_silence() {
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        let begun = Instant::now();
        // `exec`, or the shell's child would be the one that sleeps.
        let words = guest("echo one; exec sleep 60", limits).0.unwrap_err();
        assert!(words.starts_with("it hangs: nothing for"), "{words}");
        assert!(words.contains("results:\n    one"), "{words}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn messages_on_the_console_are_no_results() {
        let limits = Limits { boot: Duration::from_millis(400), ..LIMITS };
        let script = "while echo booting >&2; do sleep 0.05; done";
        let words = guest(script, limits).0.unwrap_err();
        assert!(words.starts_with("it said nothing for"), "{words}");
        assert!(words.contains("booting"), "{words}");
        assert!(words.contains("nothing on the results"), "{words}");
    }

    #[test]
    fn guest_that_talks_for_ever_is_stopped_in_the_end() {
        let limits = Limits { total: Duration::from_millis(500), ..LIMITS };
        let words = guest("while echo more; do sleep 0.05; done", limits).0.unwrap_err();
        assert!(words.starts_with("it was not done after"), "{words}");
        assert!(words.contains("results:\n    more"), "{words}");
    }

    #[test]
    fn failure_shows_only_the_last_lines() {
        let words = guest("for i in $(seq 100); do echo line $i; done", LIMITS).0.unwrap_err();
        assert!(words.contains("line 100") && words.contains("line 71\n"), "{words}");
        assert!(!words.contains("line 70\n"), "{words}");
    }

    #[test]
    fn program_that_is_not_there_is_an_error() {
        let error = watch(&mut Command::new("/nowhere/qemu"), LIMITS, "end", |_| {}).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot start the virtual machine"), "{error:#}");
    }
}
