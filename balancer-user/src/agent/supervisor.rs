//! The service manager (sd_notify(3)): ready, reloading, stopping, alive, and the files that it
//! keeps from one process to the next. Without one nothing of this does anything.

use std::{io, os::fd::BorrowedFd, time::Duration};

use sd_notify::NotifyState;
use tracing::warn;

/// Has the service manager keep files, each by its name, for the process that follows. What it has
/// already it has once. False: there is no service manager.
///
/// # Errors
/// It cannot be told.
pub(super) fn keep<'a>(files: impl Iterator<Item = (String, BorrowedFd<'a>)>) -> io::Result<bool> {
    for (name, file) in files {
        let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
        sd_notify::notify_with_fds(&states, &[file])?;
    }
    Ok(std::env::var_os("NOTIFY_SOCKET").is_some())
}

/// Has the service manager close what it keeps by a name.
pub(super) fn forget(name: &str) {
    let states = [NotifyState::FdStoreRemove, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify(&states) {
        warn!(%error, name, "the service manager cannot be told to close a listener");
    }
}

/// How to reach the service manager.
#[derive(Debug)]
pub(crate) struct Supervisor {
    watchdog: Option<Duration>,
    /// It could not be reached, which is said once.
    deaf: bool,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), deaf: false }
    }

    /// How often it wants to hear from us; half of what it waits at most.
    pub(crate) fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    pub(crate) fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(crate) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "no clock to tell the service manager of the reload"),
        }
    }

    pub(crate) fn status(&mut self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    pub(crate) fn alive(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    pub(crate) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        match sd_notify::notify(states) {
            Ok(()) => self.deaf = false,
            Err(error) if !self.deaf => {
                self.deaf = true;
                warn!(%error, "the service manager cannot be told");
            }
            Err(_) => {}
        }
    }
}
