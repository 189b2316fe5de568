//! One set after the other, each whole.

use std::time::Duration;

use crate::compile::{Assignment, Tables};

use super::{Datapath, KernelError};

/// The caller's step right before the flip: gets the number of the epoch that will be live. An
/// error leaves everything as it was.
pub type BeforeFlip<'a> =
    &'a mut dyn FnMut(u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a publish depends on besides the tables.
#[derive(Default)]
pub struct PublishOptions<'a> {
    /// How long the table before a change still serves connections without a flow entry.
    pub previous_for: Duration,
    /// How long a gone real keeps its flows; `None`: for ever (`on_gone: keep`).
    pub gone_reset: Option<Duration>,
    /// Interfaces that will be attached to, besides those that are: sources behind them are
    /// checked for spoofing.
    pub interfaces: &'a [String],
    /// See [`BeforeFlip`].
    pub before_flip: Option<BeforeFlip<'a>>,
}

/// What a publish wrote. All zero: the maps held these tables already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Dictionary entries added.
    pub keys_added: usize,
    /// Dictionary entries deleted.
    pub keys_deleted: usize,
    /// Elements of `VIPS`, `SOURCES` and `ROUTES` that changed.
    pub entries: usize,
    /// Tables written to the arena.
    pub tables: usize,
    /// Words of those.
    pub table_words: u64,
    /// Reals made, marked gone, returned or freed.
    pub reals: usize,
    /// Words of the port bitmap that changed.
    pub port_words: usize,
}

/// A finished publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The live epoch.
    pub epoch: u64,
    /// From the call to the flip: from then on new connections meet the new set.
    pub flip: Duration,
    /// The grace period after the flip.
    pub grace: Duration,
    /// What was written.
    pub written: Written,
}

/// What the writer remembers between two publishes.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) assignment: Assignment,
}

impl Memory {
    pub(crate) fn unknown() -> Self {
        Self { assignment: Assignment::default() }
    }
    pub(crate) fn fresh() -> Self {
        Self::unknown()
    }
}

impl Datapath {
    pub(crate) fn recall(&mut self) -> Result<(), KernelError> {
        self.memory.assignment = self.view.assignment()?;
        Ok(())
    }

    /// Makes `tables` the live set: all of it at one instant, or nothing.
    ///
    /// # Errors
    /// [`KernelError::Full`] before anything is written; a failure later leaves the current
    /// epoch untouched too.
    pub fn publish(
        &mut self,
        tables: &Tables,
        options: PublishOptions<'_>,
    ) -> Result<Published, KernelError> {
        let _ = (tables, options.previous_for);
        Err(KernelError::Object("publishing is not part of this build".into()))
    }
}
