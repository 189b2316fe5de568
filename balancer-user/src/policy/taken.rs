//! What readers asked a document for: which fields of which mapping, and which words of which
//! scalar. Tests hold schemas against it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{Span, fields::Form};

/// What was asked of one document.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// By where a mapping begins.
    pub(super) mappings: BTreeMap<Span, Mapping>,
    /// The words that a scalar may be, by where it begins.
    pub(super) words: BTreeMap<Span, BTreeSet<String>>,
}

/// What was asked of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The fields that were asked for.
    pub(super) names: BTreeSet<&'static str>,
    /// Fields that nobody asked for were refused.
    pub(super) closed: bool,
}

thread_local! {
    static TAKEN: RefCell<Option<Taken>> = const { RefCell::new(None) };
}

/// Says what is asked for while `read` runs.
pub(super) fn during<T>(read: impl FnOnce() -> T) -> (T, Taken) {
    TAKEN.with_borrow_mut(|taken| *taken = Some(Taken::default()));
    let result = read();
    (result, TAKEN.take().unwrap_or_default())
}

fn note(note: impl FnOnce(&mut Taken)) {
    TAKEN.with_borrow_mut(|taken| taken.as_mut().map(note));
}

/// A field of the mapping at `at` was asked for.
pub(super) fn field(at: Span, name: &'static str) {
    note(|taken| {
        taken.mappings.entry(at).or_default().names.insert(name);
    });
}

/// All fields of the mapping at `at` were asked for.
pub(super) fn all_fields(at: Span, form: Form) {
    note(|taken| taken.mappings.entry(at).or_default().closed = form == Form::Schema);
}

/// The scalar at `at` was asked to be one of these words.
pub(super) fn one_of(at: Span, words: &[&str]) {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    note(|taken| {
        taken.words.insert(at, words);
    });
}
