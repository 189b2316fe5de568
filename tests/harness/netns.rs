//! Network namespaces: made, entered by threads and commands, removed.
//!
//! A namespace is entered with setns(2), never with `ip netns exec`: that remounts `/sys` and
//! hides every bpffs below it.

use std::{
    fs::File,
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::{
    privileges::Root,
    shell::{Shell, checked},
};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";
/// All our names start so; the process id follows.
const PREFIX: &str = "balancer-";

/// A number that no other thread of this process gets.
pub(crate) fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The process id in `name`, if it is `PREFIX` + pid + `-` + anything and that process is gone.
pub(crate) fn left_by_dead_process(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// A name for something that this process makes: `balancer-PID-NUMBER-LABEL`.
pub(crate) fn unique_name(label: &str) -> String {
    format!("{PREFIX}{}-{}-{label}", std::process::id(), next_number())
}

/// A named network namespace with `lo` up, deleted on drop.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    handle: Arc<File>,
    shell: Shell,
}

impl NetNs {
    /// Makes a namespace whose name ends in `label`.
    pub fn new(root: Root, label: &str) -> Result<Self> {
        Self::with_shell(root, unique_name(label), Shell::silent())
    }

    /// Makes the namespace `name`, saying each command through `shell`.
    pub fn with_shell(_: Root, name: String, shell: Shell) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        shell.run(&format!("ip netns add {name}"))?;
        let path = Path::new(NAMES).join(&name);
        let handle = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(e) => {
                shell.run(&format!("ip netns del {name}"))?;
                return Err(e).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        let ns = Self { name, handle, shell };
        shell.ip(&ns.name, &["link set lo up".into()])?;
        Ok(ns)
    }

    /// The name, as `ip -n` and `ip netns` take it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file to hand to `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Moves the calling thread into the namespace until the guard is dropped.
    pub fn enter(&self) -> io::Result<Entered> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(Entered { home: home.into(), not_send: PhantomData })
    }

    /// Runs `work` on a thread inside the namespace and waits for it; a panic of it goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let _entered = self.enter().expect("enter the network namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace. The namespace lives until it ends, even if the
    /// name is deleted before.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let handle = Arc::clone(&self.handle);
        thread::spawn(move || {
            setns(handle.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// A command that will run inside the namespace, in this process's mount namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = Arc::clone(&self.handle);
        let enter = move || {
            setns(handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes one system call, setns, on a
        // descriptor that the closure itself keeps open; it allocates and locks nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip` with each of `lines` in the namespace.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        self.shell.ip(&self.name, lines)
    }

    /// Has `nft` carry out `script` in the namespace.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.shell.say(&format!("nsenter --net={} nft '{script}'", self.path().display()));
        let output = self
            .command("nft")
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .context("cannot run `nft`; `cargo xtask setup` installs it (package nftables)")?;
        checked("nft", output).map(drop)
    }

    /// Makes IPv6 addresses of interfaces to come usable at once: duplicate address detection
    /// would take a second.
    pub fn without_dad(&self) -> Result<()> {
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        self.sysctl("net/ipv6/conf/default/dad_transmits", "0")
    }

    /// Writes a sysctl below `/proc/sys`, as the namespace sees it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.shell.say(&format!(
            "nsenter --net={} sh -c 'echo {value} > {}'",
            self.path().display(),
            path.display()
        ));
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("cannot write {value} to {} in {}", path.display(), self.name))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Err(e) = self.shell.run(&format!("ip netns del {}", self.name)) {
            eprintln!("warning: namespace {} is left behind: {e:#}", self.name);
        }
    }
}

/// The calling thread is in another namespace; dropping this brings it home.
#[derive(Debug)]
pub struct Entered {
    home: OwnedFd,
    // A namespace belongs to a thread: the guard must be dropped by the one that made it.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(e) = setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET) {
            // Going on in the wrong namespace would touch somebody else's interfaces.
            eprintln!("cannot return to namespace {}: {e}", self.home.as_raw_fd());
            std::process::abort();
        }
    }
}

/// Deletes namespaces of processes that were killed before they could.
fn sweep() {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if left_by_dead_process(&name)
            && let Err(e) = Shell::silent().run(&format!("ip netns del {name}"))
        {
            // Somebody else's sweep may have been faster.
            if Path::new(NAMES).join(&name).exists() {
                eprintln!("warning: {e:#}");
            }
        }
    }
}
