//! QEMU, as the guests need it.

use std::{
    io::BufWriter,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{
    initramfs::Initramfs,
    kernels::Kernel,
    plan::Line,
    tool,
    watch::{Limits, watch},
};

const QEMU: &str = "qemu-system-x86_64";
/// The package that has it.
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// Where the first process lies in the archive.
pub(super) const INIT: &str = "/guest/init";

/// Fails where guests cannot be run, before anything is fetched or built.
pub(super) fn check() -> Result<()> {
    tool(QEMU, QEMU_PACKAGE)?;
    tool("setpriv", "util-linux").map(drop)
}

/// Boots `kernel` with what is in `initramfs` and watches it to its end. `words` are arguments of
/// the first process.
pub(super) fn boot(
    kernel: &Kernel,
    initramfs: &Initramfs,
    words: &str,
    limits: Limits,
    look: impl FnMut(&str),
) -> Result<()> {
    let mut qemu = command(kernel, words)?;
    qemu.stdin(stored(initramfs)?);
    watch(&mut qemu, limits, &Line::Done.to_string(), look)
}

fn command(kernel: &Kernel, words: &str) -> Result<Command> {
    // An emulator must not outlive a run that is killed: it would take a CPU for itself.
    let mut qemu = Command::new(tool("setpriv", "util-linux")?);
    qemu.args(["--pdeathsig", "KILL", "--"]).arg(tool(QEMU, QEMU_PACKAGE)?);
    // Emulated wherever it runs: many CI machines offer no KVM, or one that starts and hangs, and
    // what a test can rely on must not depend on it.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args(["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]);
    for (id, stream) in [("console", "/dev/stderr"), ("results", "/dev/stdout")] {
        qemu.args(["-chardev", &format!("file,id={id},path={stream}")]);
        qemu.args(["-serial", &format!("chardev:{id}")]);
    }
    qemu.arg("-kernel").arg(kernel.image()).args(["-initrd", "/dev/stdin"]);
    // A panic ends the emulator, by a reboot that is not allowed; an oops is a panic. On a busy
    // host the emulated timer is too late for the kernel's test of it, which panics by itself.
    let append = format!(
        "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic mitigations=off no_timer_check \
         rdinit={INIT} {words}"
    );
    qemu.arg("-append").arg(append.trim_end());
    Ok(qemu)
}

/// The archive in a file without a name, so that nothing is left of it however this run ends.
fn stored(initramfs: &Initramfs) -> Result<Stdio> {
    let file = tempfile::tempfile().with_context(|| {
        format!("cannot create a temporary file in {}", std::env::temp_dir().display())
    })?;
    initramfs.write(BufWriter::new(file.try_clone()?)).context("cannot write the initramfs")?;
    // QEMU opens `/dev/stdin` anew, so the position of this descriptor does not matter.
    Ok(file.into())
}
