//! What happened since somebody looked: causes, not a queue. A flood of events costs a few bits.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Why there may be something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cause {
    /// The configuration file changed, or somebody sent SIGHUP.
    Configuration = 1,
    /// Something below a policy path changed.
    Files = 1 << 1,
    /// Look whether something below a policy path changed: no event says so.
    Poll = 1 << 2,
    /// An interface came, went, or was renamed.
    Links = 1 << 3,
    /// An address or a route came or went.
    Routes = 1 << 4,
    /// A name has other addresses.
    Names = 1 << 5,
    /// Retire what is no longer named.
    Sweep = 1 << 6,
    /// A rule that forwarded packets meet may have come or gone.
    Rules = 1 << 7,
}

/// A set of causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Causes(u32);

impl Causes {
    pub(crate) const fn of(causes: &[Cause]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < causes.len() {
            bits |= causes[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    pub(crate) fn has(self, cause: Cause) -> bool {
        self.0 & cause as u32 != 0
    }

    /// Whether this is the only cause.
    pub(crate) fn is_only(self, cause: Cause) -> bool {
        self.0 == cause as u32
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Rung by whoever notices something; the loop alone answers.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    causes: AtomicU32,
    rung: Notify,
}

impl Bell {
    pub(crate) fn ring(&self, cause: Cause) {
        self.causes.fetch_or(cause as u32, Ordering::AcqRel);
        self.rung.notify_one();
    }

    /// Waits until the bell is rung, and takes the causes.
    pub(crate) async fn wait(&self) -> Causes {
        loop {
            let causes = Causes(self.causes.swap(0, Ordering::AcqRel));
            if !causes.is_empty() {
                return causes;
            }
            self.rung.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_answer_that_names_every_cause() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bell = Bell::default();
        for _ in 0..1000 {
            bell.ring(Cause::Files);
        }
        bell.ring(Cause::Links);
        let causes = runtime.block_on(bell.wait());
        assert_eq!(causes, Causes::of(&[Cause::Files, Cause::Links]));
        assert!(causes.has(Cause::Files) && !causes.has(Cause::Sweep));
    }
}
