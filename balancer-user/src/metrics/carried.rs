//! What the next agent must know so that totals go on: counts of earlier sets.
//!
//! What live counters hold is in the maps. What is kept here is what a name has counted beside
//! those: on counters that were given to others since, and which counters, no longer of any
//! route, connections of its earlier sets may still count on.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Name};

/// Name of the file in the state directory.
pub const CARRIED_FILE: &str = "counted.json";
/// Version of its form.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u32,
    /// Of the maps that it speaks of: others have counters of their own.
    made_at_ns: u64,
    names: Vec<Carried>,
}

/// One name's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) name: Name,
    /// Connections, packets and bytes in, packets and bytes out.
    pub(crate) counted: [u64; 5],
    /// Ids of counters that no route has, with what they said last, which is in `counted`: the
    /// next writer may zero them before the next agent reads them.
    pub(crate) retired: Vec<(u32, [u64; 5])>,
}

/// The file's bytes.
pub(crate) fn write(ledger: &Ledger, made_at_ns: u64) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&File { format: FORMAT, made_at_ns, names: ledger.carried() })
}

/// Takes over what the file says; nothing where it speaks of other maps or in another form.
pub(crate) fn read(bytes: &[u8], made_at_ns: u64, ledger: &mut Ledger) -> serde_json::Result<()> {
    let file: File = serde_json::from_slice(bytes)?;
    if (file.format, file.made_at_ns) == (FORMAT, made_at_ns) {
        ledger.restore(file.names, Instant::now());
    }
    Ok(())
}
