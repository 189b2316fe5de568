//! Texts into typed resources, once.

use super::{ReadOptions, Reader, Reading, Texts};

/// Reads every document of every text and validates it. Nothing of a resource that has an error
/// is in the set; load the set only if [`Report::valid`](super::Report::valid).
pub fn read(texts: impl Into<Texts>, options: &ReadOptions) -> Reading {
    Reader::new(*options).read(texts.into()).0
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile;
