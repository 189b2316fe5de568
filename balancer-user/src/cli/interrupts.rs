//! Ctrl-C and its like, as something to wait for.

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

use super::failure::Failure;

/// Readable once SIGINT or SIGTERM has come, which end nothing by themselves any more. To be
/// called before another thread runs.
pub(crate) fn wait_for() -> Result<SignalFd, Failure> {
    let failed = |error: nix::Error| Failure::system(error, "cannot wait for signals");
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block().map_err(failed)?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(failed)
}
