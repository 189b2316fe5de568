//! A new Debian in a directory, with this machine's kernel.
//!
//! Whatever runs in it has mount and process namespaces of its own, which end with it: there is
//! nothing to unmount afterwards, also when it is killed, and no process stays behind.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

use crate::{run, setup::CRATE_SOURCES};

/// Where these directories are. A new Debian with a build in it is too big for a /tmp in memory.
const PARENT: &str = "/var/tmp";
/// What the names begin with; the process id follows.
const NAME: &str = "balancer-provision-";
/// Where the project is copied to, inside.
pub(super) const PROJECT: &str = "/balancer";

/// Enters directory `$0`, and runs `$2` in `$1` inside. The directory becomes a mount point first:
/// `ip netns` changes how mounts spread from `/`, which must be one.
const ENTER: &str = r#"set -e; mount --bind "$0" "$0"; cd "$0"
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run; exec chroot . bash -c "cd $1 && $2""#;

/// The directory; removed with this value.
pub(super) struct Chroot {
    dir: PathBuf,
    signals: SignalFd,
}

/// What the host's apt says of itself.
struct Archives {
    /// `bookworm`.
    release: String,
    /// Where that is.
    uri: String,
    /// For /etc/apt/sources.list.
    sources: String,
}

impl Chroot {
    /// Takes a directory, and the signals that would end this process before it is removed.
    pub(super) fn new() -> Result<Self> {
        sweep()?;
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK)
            .context("cannot wait for signals")?;
        let dir = Path::new(PARENT).join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir, signals })
    }

    /// Fills it with the smallest Debian of this machine's release and archives.
    pub(super) fn debootstrap(&self) -> Result<()> {
        let archives = Archives::of_host()?;
        let mut command = namespaces();
        command.arg("--mount-proc").arg("debootstrap").arg("--variant=minbase");
        if archives.sources.contains(" https:") {
            // apt could not ask them for this package.
            command.arg("--include=ca-certificates");
        }
        command.arg(&archives.release).arg(&self.dir).arg(&archives.uri);
        self.run(&mut command).with_context(|| {
            format!("cannot make a Debian from {} (is that archive in reach?)", archives.uri)
        })?;
        self.write("etc/apt/sources.list", &archives.sources)?;
        // The way out may be a proxy, and its certificates may be somebody's own.
        let settings = run::ask(Command::new("apt-config").arg("dump"))?;
        let proxies = |line: &&str| line.starts_with("Acquire::") && line.contains("::Proxy ");
        let proxies: Vec<_> = settings.lines().filter(proxies).collect();
        self.write("etc/apt/apt.conf.d/90proxy", &format!("{}\n", proxies.join("\n")))?;
        self.copy_all(Path::new("/usr/local/share/ca-certificates"))?;
        let cargo = env::home_dir().map(|home| home.join(".cargo"));
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or(cargo);
        if let Some(config) = cargo.map(|home| home.join("config.toml"))
            && config.exists()
        {
            self.copy(&config, Path::new("root/.cargo/config.toml"))?;
        }
        Ok(())
    }

    /// Copies the files that git tracks or would be asked to, as they are now.
    pub(super) fn copy_project(&self) -> Result<usize> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let list = run::ask(git.current_dir(run::root()))
            .context("what is copied is what git knows of the project")?;
        let files: Vec<_> = list.split_terminator('\0').collect();
        for file in &files {
            self.copy(&run::root().join(file), &Path::new(&PROJECT[1..]).join(file))?;
        }
        Ok(files.len())
    }

    /// Runs a shell's command line in the project inside, as root on a machine that has nothing
    /// of the host but its way to the network.
    pub(super) fn shell(&self, line: &str) -> Result<()> {
        self.run(&mut self.inside(line))
    }

    /// The same, for its output.
    pub(super) fn ask(&self, line: &str) -> Result<String> {
        run::ask(&mut self.inside(line))
    }

    fn inside(&self, line: &str) -> Command {
        let mut command = namespaces();
        command.args(["bash", "-c", ENTER]).arg(&self.dir).args([PROJECT, line]).env_clear();
        let kept = |name: &str| {
            CRATE_SOURCES.iter().any(|prefix| name.starts_with(prefix))
                || name.to_lowercase().ends_with("_proxy")
        };
        command.envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(kept)));
        command.envs([("HOME", "/root"), ("LANG", "C.UTF-8"), ("PATH", "/usr/sbin:/usr/bin")]);
        command
    }

    /// Runs it to its end, or to the first signal.
    fn run(&self, command: &mut Command) -> Result<()> {
        eprintln!("$ {}", run::shown(command));
        // A group of its own: Ctrl-C is for this process, which ends the other.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", run::shown(command)))?;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "`{}` failed: {status}", run::shown(command));
                return Ok(());
            }
            if let Some(signal) = self.signals.read_signal()? {
                // `--kill-child` takes all that it started along.
                child.kill()?;
                child.wait()?;
                let name = i32::try_from(signal.ssi_signo).ok().and_then(|n| n.try_into().ok());
                bail!("stopped by {}", name.map_or("a signal", Signal::as_str));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a file of the host to a path inside, with its mode.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.dir.join(to);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Copies the files in a directory of the host, if there is one, to the same path inside.
    fn copy_all(&self, dir: &Path) -> Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("cannot read {}", dir.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_file() {
                self.copy(&path, path.strip_prefix("/")?)?;
            }
        }
        Ok(())
    }
}

impl Drop for Chroot {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.dir) {
            eprintln!("error: {e:#}");
        }
    }
}

impl Archives {
    fn of_host() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release")?;
        let release = text
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release names no release: this test needs a released Debian")?;
        let targets = run::ask(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
            "Origin: Debian",
        ]))?;
        let mut lines: Vec<_> = targets.lines().collect();
        lines.sort_unstable();
        // Several architectures give the same line.
        lines.dedup();
        let uri = lines
            .iter()
            .find_map(|line| {
                let mut words = line.split(' ').skip(1);
                let uri = words.next()?;
                (words.next() == Some(release)).then_some(uri)
            })
            .with_context(|| {
                format!("apt knows no archive of Debian {release}: run `apt-get update`")
            })?;
        Ok(Self {
            release: release.to_owned(),
            uri: uri.to_owned(),
            sources: format!("{}\n", lines.join("\n")),
        })
    }
}

/// A command whose arguments run in new mount and process namespaces. `bash` is the first process
/// there; the others end with it.
fn namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    command
}

/// Removes what a process that was killed left.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(PARENT)?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(NAME)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            eprintln!("removing {}, left by process {pid}", entry.path().display());
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory in which nothing is mounted.
fn remove(dir: &Path) -> Result<()> {
    // Following a mount would delete somebody else's files.
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(point) = mount_below(&mounts, dir) {
        bail!("{point} is mounted: unmount it, then remove {}", dir.display());
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The first mount point in or below `dir`.
fn mount_below<'a>(mountinfo: &'a str, dir: &Path) -> Option<&'a str> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.into_iter().find(|point| Path::new(point).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_are_seen_and_others_are_not() {
        let table = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
                     23 22 0:5 / /var/tmp/balancer-provision-7/proc rw - proc proc rw\n";
        let inside = mount_below(table, Path::new("/var/tmp/balancer-provision-7"));
        assert_eq!(inside, Some("/var/tmp/balancer-provision-7/proc"));
        assert_eq!(mount_below(table, Path::new("/var/tmp/balancer-provision-70")), None);
    }
}
