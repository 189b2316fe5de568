//! What policies say that no request could be matched with or changed by.

use crate::{
    http::{BadHeader, HeaderChanges},
    policy::http_route::HeaderModifier,
};

/// Something of a policy that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Refused {
    /// Field path in the document: `conf.http[0].match.path.regex`.
    pub field: String,
    /// Why, and what would be right.
    pub why: String,
}

/// The value, or one refusal more.
pub(super) fn take<T>(
    refused: &mut Vec<Refused>,
    field: impl FnOnce() -> String,
    read: Result<T, impl ToString>,
) -> Option<T> {
    read.map_err(|why| refused.push(Refused { field: field(), why: why.to_string() })).ok()
}

/// The part of an added header that is wrong.
pub(super) fn part(done: &Result<(), BadHeader>) -> &'static str {
    match done {
        Err(BadHeader::Value { .. } | BadHeader::Host(_)) => "value",
        Err(BadHeader::Name(_)) | Ok(()) => "name",
    }
}

/// Removals, then what is set, then what is added (semantics 4.5, 5.5).
pub(super) fn header_changes(
    modifier: &HeaderModifier,
    field: &str,
    refused: &mut Vec<Refused>,
) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    for (at, name) in modifier.remove.iter().enumerate() {
        take(refused, || format!("{field}.remove[{at}]"), changes.remove(name));
    }
    for (at, header) in modifier.set.iter().enumerate() {
        let done = changes.set(&header.name, &header.value);
        take(refused, || format!("{field}.set[{at}].{}", part(&done)), done.clone());
    }
    for (at, header) in modifier.add.iter().enumerate() {
        let done = changes.append(&header.name, &header.value);
        take(refused, || format!("{field}.add[{at}].{}", part(&done)), done.clone());
    }
    changes
}
