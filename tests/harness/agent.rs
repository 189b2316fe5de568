//! `balancer agent` as a service manager would run it: started, told of, stopped, killed.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{instance::Instance, kept::Kept, scale::patience};

/// How long anything may take that the agent is expected to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked whether it has happened.
const LOOK: Duration = Duration::from_millis(2);

/// A running agent, killed when this is dropped. Its log is in a file; what it tells the service
/// manager arrives at a socket of the test.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: UnixDatagram,
    socket_path: PathBuf,
    log: PathBuf,
    /// Messages of sd_notify(3) that have arrived.
    told: Vec<String>,
    /// Files that it has the service manager keep.
    kept: Kept,
}

impl Agent {
    /// Starts an agent and waits until it is ready. `args` follow `--config FILE`.
    pub fn start(instance: &Instance<'_>, config: &Path, args: &[&str]) -> Result<Self> {
        let mut agent = Self::start_unready(instance, config, args, &[])?;
        agent.wait_told("READY=1")?;
        Ok(agent)
    }

    /// Starts an agent with the files that one before it had the service manager keep.
    pub fn restart(
        instance: &Instance<'_>,
        config: &Path,
        args: &[&str],
        kept: Kept,
    ) -> Result<Self> {
        let mut agent = Self::begin(instance, config, args, &[], kept)?;
        agent.wait_told("READY=1")?;
        Ok(agent)
    }

    /// Starts an agent with more environment, and does not wait.
    pub fn start_unready(
        instance: &Instance<'_>,
        config: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::begin(instance, config, args, environment, Kept::default())
    }

    fn begin(
        instance: &Instance<'_>,
        config: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
        kept: Kept,
    ) -> Result<Self> {
        let home = config.parent().context("a configuration in a directory")?;
        let number = crate::netns::next_number();
        let socket_path = home.join(format!("notify-{number}"));
        let log = home.join(format!("agent-{number}.log"));
        let socket = UnixDatagram::bind(&socket_path)
            .with_context(|| format!("cannot bind {}", socket_path.display()))?;
        socket.set_nonblocking(true)?;
        let config = config.display().to_string();
        let mut words = vec!["agent", "--config", &config];
        words.extend(args);
        let file = fs::File::create(&log)?;
        let mut command = if kept.is_empty() {
            instance.command(&words)
        } else {
            let mut command = instance.command_by("LISTEN_PID=$$ exec \"$@\"", &words);
            kept.pass(&mut command)?;
            command
        };
        let child = command
            .env("NOTIFY_SOCKET", &socket_path)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .context("cannot start the agent")?;
        Ok(Self { child, socket, socket_path, log, told: Vec::new(), kept })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Everything it has told the service manager: one element a message.
    pub fn told(&mut self) -> &[String] {
        while let Ok(message) = self.kept.receive(&self.socket) {
            self.told.push(message);
        }
        &self.told
    }

    /// Names of the files that the service manager keeps for it.
    pub fn kept(&mut self) -> Vec<&str> {
        self.told();
        self.kept.names()
    }

    /// Waits until a message to the service manager has the line `line`, and returns it.
    pub fn wait_told(&mut self, line: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            let found = self.told().iter().find(|message| message.lines().any(|l| l == line));
            if let Some(message) = found {
                return Ok(message.clone());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent has ended ({status}) without telling {line}\n{}", self.log());
            }
            if begun.elapsed() > patience(PATIENCE) {
                bail!("the agent has not told {line}, but {:?}\n{}", self.told, self.log());
            }
            thread::sleep(LOOK);
        }
    }

    /// Forgets what was told so far.
    pub fn forget_told(&mut self) {
        self.told();
        self.told.clear();
    }

    /// Waits until `happened`, or fails with `what` and the log.
    pub fn wait(&mut self, what: &str, mut happened: impl FnMut() -> bool) -> Result<Duration> {
        let begun = Instant::now();
        while !happened() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent has ended ({status}) before: {what}\n{}", self.log());
            }
            if begun.elapsed() > patience(PATIENCE) {
                bail!("never: {what}\n{}", self.log());
            }
            thread::sleep(LOOK);
        }
        Ok(begun.elapsed())
    }

    /// Waits until a line of the log has all of `words`.
    pub fn wait_logged(&mut self, words: &[&str]) -> Result<Duration> {
        let log = self.log.clone();
        self.wait(&format!("a line of the log with {words:?}"), || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.lines().any(|line| words.iter().all(|word| line.contains(word)))
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// SIGTERM, and waits for the end; anything but exit code 0 is an error.
    pub fn stop(mut self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        let status = self.end()?;
        if !status.success() {
            bail!("the agent ended with {status}\n{}", self.log());
        }
        Ok(self.log())
    }

    /// What the service manager keeps for the next one.
    pub fn take_kept(&mut self) -> Kept {
        self.told();
        std::mem::take(&mut self.kept)
    }

    /// [`Agent::stop`], and what the service manager keeps for the next one.
    pub fn stop_keeping(mut self) -> Result<Kept> {
        let kept = self.take_kept();
        self.stop().map(|_| kept)
    }

    /// Waits until it ends by itself.
    pub fn end(&mut self) -> Result<std::process::ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience(PATIENCE) {
                bail!("the agent does not end\n{}", self.log());
            }
            thread::sleep(LOOK);
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ends nothing where it has ended already.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("warning: agent {} is left behind: {error}", self.child.id());
        }
        let _ = fs::remove_file(&self.socket_path);
        if thread::panicking() {
            eprintln!("the log of agent {}:\n{}", self.child.id(), self.log());
        }
    }
}
