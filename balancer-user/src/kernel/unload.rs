//! Removing everything of ours.

use std::{fs, io, path::Path};

use super::{
    KernelError,
    attach::{self, Detached, names},
    create,
    layout::Pins,
    lock::{lock, require_privileges},
};

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
/// Works on what a first load left that was cut short. Filters and qdiscs are looked for in the
/// calling thread's network namespace; tcx links are found wherever they are.
///
/// # Errors
/// [`KernelError::NotLoaded`] where the directory does not exist, [`KernelError::Busy`], or what
/// the kernel says.
pub fn unload(bpffs: &Path) -> Result<Unloaded, KernelError> {
    if !bpffs.exists() {
        require_privileges("unloading")?;
        return Err(KernelError::NotLoaded { path: bpffs.to_owned() });
    }
    let lock = lock(bpffs)?;
    let pins = Pins::new(lock.path());
    // Programs off the interfaces first: from then on no packet needs the rest.
    let Detached { links, qdiscs } = attach::detach_all(&pins)?;
    let programs = names(&pins.programs())?;
    let maps = names(&pins.maps())?;
    create::remove_pins(&pins)?;
    match fs::remove_dir(bpffs) {
        // The directory is where the bpffs itself is mounted: not of our making.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::system(format!("removing {}", bpffs.display()), e));
        }
        _ => {}
    }
    Ok(Unloaded { links, qdiscs, programs, maps })
}
