//! Removing everything of ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{ProgramInfo, loaded_programs},
};

use super::{
    KernelError,
    attach::{self, Detached, names},
    create,
    layout::Pins,
    lock::{lock, require_privileges},
    map_failed,
    mapped::Access,
    program_failed,
    view::View,
};

/// What [`unload`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Interfaces (and directions) that programs were taken off: `eth0 ingress (tcx)`.
    pub links: Vec<String>,
    /// Interfaces whose clsact qdisc was removed, because we had made it.
    pub qdiscs: Vec<String>,
    /// Rules and routes that brought packets to the proxy.
    pub rules: Vec<String>,
    /// Programs unpinned.
    pub programs: Vec<String>,
    /// Maps unpinned.
    pub maps: Vec<String>,
    /// Of those, what another process still holds open: it goes when that process closes it.
    pub held: Vec<String>,
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
    let rules = match View::open(lock.path(), Access::Read) {
        Ok(view) => view.undeliver()?,
        // Only a proxy of this version, and of maps that are complete, has made any.
        Err(_) => Vec::new(),
    };
    let programs = names(&pins.programs())?;
    let maps = names(&pins.maps())?;
    let ids = Ids::read(&pins, &programs, &maps)?;
    create::remove_pins(&pins)?;
    match fs::remove_dir(bpffs) {
        // The directory is where the bpffs itself is mounted: not of our making.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::system(format!("removing {}", bpffs.display()), e));
        }
        _ => {}
    }
    let held = ids.wait_until_gone()?;
    Ok(Unloaded { links, qdiscs, rules, programs, maps, held })
}

/// How long the kernel may take to free what nothing refers to any more: it does so after RCU
/// grace periods, on a work queue.
const FREEING: Duration = Duration::from_secs(2);

/// Kernel ids of what was pinned.
struct Ids {
    programs: BTreeMap<u32, String>,
    maps: BTreeMap<u32, String>,
}

impl Ids {
    fn read(pins: &Pins, programs: &[String], maps: &[String]) -> Result<Self, KernelError> {
        let program = |name: &String| {
            let failed = |e| program_failed(format!("opening program {name}"), e);
            let info = ProgramInfo::from_pin(pins.program(name)).map_err(failed)?;
            Ok((info.id(), format!("program {name}")))
        };
        let map = |name: &String| {
            let info = MapInfo::from_pin(pins.map(name)).map_err(|e| map_failed(name, e))?;
            Ok((info.id(), format!("map {name}")))
        };
        Ok(Self {
            programs: programs.iter().map(program).collect::<Result<_, KernelError>>()?,
            maps: maps.iter().map(map).collect::<Result<_, KernelError>>()?,
        })
    }

    /// Returns the names of what is still there when the time is up.
    fn wait_until_gone(self) -> Result<Vec<String>, KernelError> {
        let deadline = Instant::now() + FREEING;
        loop {
            // An object may go away between two steps of the walk: that is no failure.
            let programs: BTreeSet<u32> =
                loaded_programs().filter_map(Result::ok).map(|p| p.id()).collect();
            let maps: BTreeSet<u32> =
                loaded_maps().filter_map(Result::ok).map(|m| m.id()).collect();
            let left = |ours: &BTreeMap<u32, String>, loaded: &BTreeSet<u32>| {
                let left = ours.iter().filter(|(id, _)| loaded.contains(id));
                left.map(|(_, name)| name.clone()).collect::<Vec<_>>()
            };
            let mut held = left(&self.programs, &programs);
            held.extend(left(&self.maps, &maps));
            if held.is_empty() || Instant::now() >= deadline {
                return Ok(held);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
