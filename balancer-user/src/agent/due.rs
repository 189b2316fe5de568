//! When to act on what happened: after a quiet moment, and no later than a bound.

use std::time::{Duration, Instant};

use super::bell::{Cause, Causes};

/// So long must nothing happen: what writes several files does so in one go.
const QUIET: Duration = Duration::from_millis(15);
/// So long after the first event at the latest: something may never be quiet.
const BOUND: Duration = Duration::from_millis(50);
/// Routes change in storms when a link comes up, and nothing depends on the first of them.
const ROUTES_QUIET: Duration = Duration::from_millis(100);
const ROUTES_BOUND: Duration = Duration::from_millis(500);

/// Causes that wait, and since when.
#[derive(Debug, Default)]
pub(crate) struct Due {
    causes: Causes,
    /// When the first of them came.
    since: Option<Instant>,
    /// When to act.
    at: Option<Instant>,
}

impl Due {
    pub(crate) fn note(&mut self, causes: Causes, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.causes = self.causes.with(causes);
        let waits = Causes::of(&[Cause::Routes, Cause::Sweep, Cause::Poll]);
        let patient = self.causes.with(waits) == waits;
        let (quiet, bound) = if patient { (ROUTES_QUIET, ROUTES_BOUND) } else { (QUIET, BOUND) };
        self.at = Some((now + quiet).min(since + bound));
    }

    /// When to act; `None`: nothing waits.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(crate) fn has(&self, cause: Cause) -> bool {
        self.causes.has(cause)
    }

    /// What to act on, and since when it waits.
    pub(crate) fn take(&mut self) -> (Causes, Option<Instant>) {
        let Self { causes, since, .. } = std::mem::take(self);
        (causes, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: Causes = Causes::of(&[Cause::Files]);
    const ROUTES: Causes = Causes::of(&[Cause::Routes]);

    #[test]
    fn a_burst_is_waited_out_but_not_for_ever() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut due = Due::default();
        assert_eq!(due.at(), None);
        due.note(FILES, at(0));
        assert_eq!(due.at(), Some(at(15)));
        due.note(FILES, at(10));
        assert_eq!(due.at(), Some(at(25)));
        due.note(FILES, at(45));
        assert_eq!(due.at(), Some(at(50)), "the bound");
        assert_eq!(due.take(), (FILES, Some(at(0))));
        assert_eq!(due.at(), None);
    }

    #[test]
    fn a_file_does_not_wait_for_routes() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut due = Due::default();
        due.note(ROUTES, at(0));
        assert_eq!(due.at(), Some(at(100)));
        due.note(FILES, at(20));
        assert_eq!(due.at(), Some(at(35)));
        assert_eq!(due.take().0, FILES.with(ROUTES));
    }
}
