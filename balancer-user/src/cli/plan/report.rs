//! What `plan` prints: names of fields are those of `-o json`.

use serde::Serialize;

use super::{findings::Finding, room::RoomLine};
use crate::plan::Changes;

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) against: Against,
    #[serde(flatten)]
    pub(super) changes: Changes,
    pub(super) room: Vec<RoomLine>,
    /// Findings that the set before does not have.
    pub(super) findings: Vec<Finding>,
    /// What compiling has to say and did not have to say of the set before.
    pub(super) warnings: Vec<String>,
}

/// What was compared with.
#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
pub(super) enum Against {
    /// What packets see.
    Live { epoch: u64 },
    /// Nothing is loaded.
    Nothing { bpffs: String },
    /// Other policies.
    Files { files: Vec<String> },
}
