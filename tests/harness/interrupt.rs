//! Ctrl-C: what runs for a person ends at its next step, so that everything it made is removed in
//! order.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Blocks SIGINT, SIGTERM and SIGHUP in this thread and those that it starts, and notes their
/// arrival. To be called before any other thread runs.
pub fn watch() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            eprintln!("\n{signal}: cleaning up");
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// Fails once a signal has arrived.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted; everything was removed");
    Ok(())
}

/// Sleeps, but not past a signal.
pub fn sleep(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end && check().is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}
