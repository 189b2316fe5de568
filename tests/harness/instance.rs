//! One balancer beside others: its own bpffs, state directory and network namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Once, OnceLock},
};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    netns::{NetNs, left_by_dead_process, unique_name},
    privileges::Root,
    shell::{Shell, checked},
};

/// Not below `/tmp`: what is mounted here must not outlive a reboot.
pub(crate) const HOME: &str = "/run";

/// A directory with a bpffs and a state directory in it, and the command that uses them.
///
/// Each instance mounts a bpffs of its own: unmounting it drops every pin at once, whatever
/// state the code under test left them in.
#[derive(Debug)]
pub struct Instance<'a> {
    node: &'a NetNs,
    home: PathBuf,
    shell: Shell,
}

impl<'a> Instance<'a> {
    /// An instance in the namespace `node`.
    pub fn new(root: Root, node: &'a NetNs) -> Result<Self> {
        Self::with_shell(root, node, Shell::silent())
    }

    /// The same, saying each command through `shell`.
    pub fn with_shell(_: Root, node: &'a NetNs, shell: Shell) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = unique_name("instance");
        let instance = Self { node, home: Path::new(HOME).join(&name), shell };
        let bpffs = instance.bpffs();
        shell.say(&format!("mkdir -p {}", bpffs.display()));
        fs::create_dir_all(&bpffs).with_context(|| format!("cannot create {}", bpffs.display()))?;
        shell.say(&format!("mount -t bpf {name} {}", bpffs.display()));
        mount(Some(name.as_str()), &bpffs, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("cannot mount a bpffs at {}", bpffs.display()))?;
        Ok(instance)
    }

    /// The argument of `--bpffs`.
    pub fn bpffs(&self) -> PathBuf {
        self.home.join("bpffs")
    }

    /// The argument of `--state`.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// `balancer ARGS --bpffs … --state …` inside the node's namespace, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.node.command(balancer_binary());
        self.complete(&mut command, args);
        command
    }

    /// The same, begun by a shell as the last word of `script`, which ends with `exec "$@"`.
    pub fn command_by(&self, script: &str, args: &[&str]) -> Command {
        let mut command = self.node.command("sh");
        command.args(["-c", script, "sh"]).arg(balancer_binary());
        self.complete(&mut command, args);
        command
    }

    fn complete(&self, command: &mut Command, args: &[&str]) {
        command.args(args).arg("--bpffs").arg(self.bpffs()).arg("--state").arg(self.state());
        command.stdin(Stdio::null()).env("NO_COLOR", "1");
    }

    /// The same as something to paste into a shell.
    pub fn line(&self, args: &[&str]) -> String {
        format!(
            "nsenter --net={} balancer {} --bpffs {} --state {}",
            self.node.path().display(),
            args.join(" "),
            self.bpffs().display(),
            self.state().display()
        )
    }

    /// Runs `balancer ARGS` and returns how it ended.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        self.shell.say(&self.line(args));
        self.command(args).output().with_context(|| format!("cannot run {}", self.line(args)))
    }

    /// Runs `balancer ARGS` and returns its stdout; any exit code but 0 is an error with
    /// everything that it said.
    pub fn balancer(&self, args: &[&str]) -> Result<String> {
        checked(&self.line(args), self.output(args)?)
    }

    /// Runs `balancer ARGS -o json` and reads its stdout.
    pub fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
        let text = self.balancer(&args)?;
        serde_json::from_str(&text)
            .with_context(|| format!("not JSON: the output of {}\n{text}", self.line(&args)))
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        self.shell.say(&format!("umount {0}/bpffs; rm -r {0}", self.home.display()));
        remove(&self.home);
    }
}

fn remove(home: &Path) {
    // Never delete through a mount that is still there: its entries are live pins.
    let bpffs = home.join("bpffs");
    match umount2(&bpffs, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(e) => return eprintln!("warning: {} stays mounted: {e}", bpffs.display()),
    }
    match fs::remove_dir_all(home) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("warning: {} is left behind: {e}", home.display());
        }
        _ => {}
    }
}

/// Removes what processes left that were killed before they could.
fn sweep() {
    let Ok(entries) = fs::read_dir(HOME) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(left_by_dead_process) {
            remove(&entry.path());
        }
    }
}

/// The `balancer` to test: `$BALANCER_BIN`, else the one that cargo builds from this tree.
///
/// # Panics
/// If it cannot be built.
pub fn balancer_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("BALANCER_BIN") {
        Some(path) => path.into(),
        None => build().unwrap_or_else(|e| panic!("no balancer to test: {e:#}")),
    })
}

/// Builds the binary if it is older than its sources, with the profile of this test binary.
/// Cargo does not do it by itself: the binary belongs to another package.
fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--package", "balancer-user", "--bin", "balancer"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let messages = checked("cargo build --package balancer-user --bin balancer", output)?;
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["target"]["name"] == "balancer"
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built balancer and did not say where")
}
