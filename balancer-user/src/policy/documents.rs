//! Where documents stand in the input texts.
//!
//! A document that comes or goes moves all that stand below it. So a [`Span`] counts lines from the
//! beginning of its document, and where that is stands here alone: what was read of a document that
//! only moved stays what it was.

use std::fmt;

use imbl::Vector;

use super::{Place, Span, Texts};

/// The input texts, and where each document stands in them. Copies share what they have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The texts.
    pub texts: Texts,
    /// By [`Span::document`]. Those that are there no more keep theirs until another one has their
    /// number.
    stand: Vector<Stand>,
}

/// Where a document stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// Index into [`Documents::texts`].
    pub text: u32,
    /// How many documents come before it in its text; empty ones do not count.
    pub number: u32,
    /// Its first line, from 1.
    pub line: u32,
}

/// A place in an input text, for people: `FILE:LINE:COLUMN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'t> {
    /// Index into [`Documents::texts`].
    pub text: u32,
    /// The path as given, or `-`.
    pub file: &'t str,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Documents {
    /// Texts that are one document each, from their first line on: configuration files.
    pub fn whole(texts: Texts) -> Self {
        let stand = (0..).zip(&texts).map(|(text, _)| Stand { text, number: 0, line: 1 }).collect();
        Self { texts, stand }
    }

    /// Where a document stands. `None`: there is no such document.
    pub fn stand(&self, document: u32) -> Option<Stand> {
        self.stand.get(document as usize).copied()
    }

    /// The name of the text that a document stands in. `None`: there is no such document.
    pub fn file(&self, document: u32) -> Option<&str> {
        let text = self.texts.get(self.stand(document)?.text as usize)?;
        Some(&text.name)
    }

    /// Where a span is. `None`: there is no such document.
    pub fn position(&self, span: Span) -> Option<Position<'_>> {
        let Stand { text, line, .. } = self.stand(span.document)?;
        let file = &self.texts.get(text as usize)?.name;
        let line = line.saturating_add(span.line).saturating_sub(1);
        Some(Position { text, file, line, column: span.column })
    }

    /// What the order of the texts, and of the documents and items in them, goes by.
    pub(super) fn order(&self, at: Place) -> (u32, u32, u32) {
        let Stand { text, number, .. } = self.stand(at.document).unwrap_or_default();
        (text, number, at.item)
    }

    /// A number for a document that has none yet.
    pub(super) fn add(&mut self) -> u32 {
        self.stand.push_back(Stand::default());
        u32::try_from(self.stand.len() - 1).unwrap_or(u32::MAX)
    }

    /// Says where a document stands.
    pub(super) fn put(&mut self, document: u32, stand: Stand) {
        // What is as before stays shared with copies.
        if self.stand(document) != Some(stand) {
            self.stand.set(document as usize, stand);
        }
    }
}
