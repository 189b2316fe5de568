//! A group of processes whose CPU time is counted together, and which end together.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    netns::{NetNs, left_by_dead_process, unique_name},
    privileges::Root,
};

/// How long the kernel may take to end the processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup of version 2, wherever that is mounted. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one whose name ends in `label`.
    pub fn new(_: Root, label: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        let top = mounted()?;
        SWEPT.call_once(|| sweep(&top));
        let path = top.join(unique_name(label));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// A command that will run in `ns` and be in this group from its first instruction, with
    /// everything that it starts.
    pub fn command(&self, ns: &NetNs, program: impl AsRef<OsStr>) -> Command {
        let mut command = ns.command("sh");
        command.args(["-c", r#"echo $$ >"$0" && exec "$@""#]);
        command.arg(self.path.join("cgroup.procs")).arg(program);
        command
    }

    /// Moves a running process here; what it used before is counted elsewhere.
    pub fn add(&self, pid: u32) -> Result<()> {
        let file = self.path.join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("cannot write {pid} to {}", file.display()))
    }

    /// What its processes have used so far, those that have ended too: all time in which they were
    /// on a CPU, with the softirqs that ran meanwhile where the kernel keeps no separate account
    /// of these (`CONFIG_IRQ_TIME_ACCOUNTING`). Exact for processes that sleep; one that runs is
    /// up to a tick behind.
    pub fn cpu(&self) -> Result<Duration> {
        let file = self.path.join("cpu.stat");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let micros = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no usage_usec in {}: {text}", file.display()))?;
        Ok(Duration::from_micros(micros))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.path) {
            eprintln!("warning: {} is left behind: {e}", self.path.display());
        }
    }
}

/// Where version 2 is mounted: alone, or beside version 1.
fn mounted() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let place = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next()? == "cgroup2").then_some(place)
    });
    place.map(PathBuf::from).context(
        "no cgroup2 is mounted, and CPU time is counted by it: `mount -t cgroup2 none DIR`",
    )
}

/// Ends the processes of a group, and the group.
fn remove(path: &Path) -> io::Result<()> {
    // Processes may appear while one by one is killed; this takes them all (Linux 5.14).
    fs::write(path.join("cgroup.kill"), "1")?;
    let begun = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// Removes what processes left that were killed before they could.
fn sweep(top: &Path) {
    let Ok(entries) = fs::read_dir(top) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(left_by_dead_process)
            && let Err(e) = remove(&entry.path())
            && entry.path().exists()
        {
            eprintln!("warning: {}: {e}", entry.path().display());
        }
    }
}
