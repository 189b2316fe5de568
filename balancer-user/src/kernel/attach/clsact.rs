//! Filters of the clsact qdisc, where the kernel has no tcx. They cannot be pinned: a symbolic
//! link below the pin directory records on which interface they are and whether the qdisc is of
//! our making.

use std::{fs, io, os::unix::fs::symlink, path::PathBuf};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};

use super::{
    super::{
        KernelError,
        layout::{Pins, escape_interface, unescape_interface},
        netlink, program_failed,
    },
    Direction, Hook, Link,
};

/// Where our filters are among others, and by what they are told from others: fixed, so that
/// they are found again.
pub(super) const PRIORITY: u16 = 0x0ba1;
const HANDLE: TcHandle = TcHandle::new(0, 0x0ba1);

/// Who made the qdisc, as the record's target says it.
const MADE: &str = "qdisc-made";
const FOUND: &str = "qdisc-found";

fn record(pins: &Pins, interface: &str) -> PathBuf {
    pins.clsact().join(escape_interface(interface))
}

/// Interfaces with a record.
pub(super) fn recorded(pins: &Pins) -> Result<Vec<String>, KernelError> {
    Ok(super::names(&pins.clsact())?.iter().map(|n| unescape_interface(n)).collect())
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// The filter at our place.
fn at_our_place(index: u32, direction: Direction) -> Result<Option<netlink::Filter>, KernelError> {
    Ok(netlink::filters(index, direction)?
        .into_iter()
        .find(|f| f.priority == PRIORITY && f.handle == u32::from(HANDLE)))
}

/// Our filters that are in place, for each record.
pub(super) fn links(pins: &Pins, ours: [u32; 2]) -> Result<Vec<Link>, KernelError> {
    let mut links = Vec::new();
    for interface in recorded(pins)? {
        for (direction, program) in [Direction::Ingress, Direction::Egress].into_iter().zip(ours) {
            let live = match netlink::interface_index(&interface)? {
                Some(index) => {
                    at_our_place(index, direction)?.is_some_and(|f| f.program == program)
                }
                None => false,
            };
            let interface = interface.clone();
            links.push(Link {
                interface,
                direction,
                hook: Hook::Clsact,
                mode: None,
                program,
                live,
            });
        }
    }
    Ok(links)
}

/// Adds a filter, or adopts ours. True: it was made now.
pub(super) fn attach(
    pins: &Pins,
    program: &mut SchedClassifier,
    interface: &str,
    index: u32,
    direction: Direction,
) -> Result<(bool, Link), KernelError> {
    let action = || format!("attaching to {interface} ({}, clsact)", direction.name());
    let id = program.info().map_err(|e| program_failed(action(), e))?.id();
    let link = Link {
        interface: interface.into(),
        direction,
        hook: Hook::Clsact,
        mode: None,
        program: id,
        live: true,
    };
    if let Some(filter) = at_our_place(index, direction)? {
        if filter.program == id {
            return Ok((false, link));
        }
        let owner = match filter.program {
            0 => format!("kind {}", filter.kind),
            other => format!("BPF program {} with id {other}", filter.name),
        };
        return Err(KernelError::ForeignFilter {
            interface: interface.into(),
            direction: direction.name(),
            owner,
            priority: PRIORITY,
            handle: u32::from(HANDLE),
        });
    }
    ensure_qdisc(pins, interface, index)?;
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let made = program
        .attach_with_options(interface, attach_type(direction), TcAttachOptions::Netlink(options))
        .map_err(|e| program_failed(action(), e))?;
    let taken = program.take_link(made).map_err(|e| program_failed(action(), e))?;
    // Dropping it would remove the filter.
    std::mem::forget(taken);
    Ok((true, link))
}

/// The record comes first: a qdisc without one would stay for ever.
fn ensure_qdisc(pins: &Pins, interface: &str, index: u32) -> Result<(), KernelError> {
    let there = netlink::has_clsact(index)?;
    let path = record(pins, interface);
    let target = if there { FOUND } else { MADE };
    match fs::read_link(&path) {
        Ok(_) if there => {}
        // A record of an interface of this name that was deleted since.
        Ok(_) => {
            remove_record(pins, interface)?;
            write_record(&path, target)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => write_record(&path, target)?,
        Err(e) => return Err(KernelError::system(format!("reading {}", path.display()), e)),
    }
    if there {
        return Ok(());
    }
    tc::qdisc_add_clsact(interface).map_err(|e| {
        KernelError::system(format!("adding a clsact qdisc to {interface}"), io::Error::other(e))
    })
}

fn write_record(path: &std::path::Path, target: &str) -> Result<(), KernelError> {
    symlink(target, path).map_err(|e| KernelError::system(format!("making {}", path.display()), e))
}

fn remove_record(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let path = record(pins, interface);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::system(format!("removing {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// Removes the records of interfaces that were deleted: their qdisc went along. Returns the
/// names of those.
pub(super) fn forget_gone(pins: &Pins) -> Result<Vec<String>, KernelError> {
    let mut gone = Vec::new();
    for interface in recorded(pins)? {
        if netlink::interface_index(&interface)?.is_none() {
            remove_record(pins, &interface)?;
            gone.push(interface);
        }
    }
    Ok(gone)
}

/// Removes our filter of one direction, if the one at our place is `program`.
pub(super) fn detach(
    interface: &str,
    direction: Direction,
    program: Option<u32>,
) -> Result<bool, KernelError> {
    let Some(index) = netlink::interface_index(interface)? else { return Ok(false) };
    let ours =
        at_our_place(index, direction)?.is_some_and(|f| program.is_some_and(|id| f.program == id));
    if !ours {
        return Ok(false);
    }
    let action = || format!("removing the filter of {interface} ({})", direction.name());
    let link =
        SchedClassifierLink::attached(interface, attach_type(direction), PRIORITY, HANDLE, None)
            .map_err(|e| KernelError::system(action(), e))?;
    aya::programs::links::Link::detach(link).map_err(|e| program_failed(action(), e))?;
    Ok(true)
}

/// Removes the qdisc where we made it and nobody else uses it, and the record. True: the qdisc
/// was removed.
pub(super) fn give_up_qdisc(pins: &Pins, interface: &str) -> Result<bool, KernelError> {
    let path = record(pins, interface);
    let made = match fs::read_link(&path) {
        Ok(target) => target.as_os_str() == MADE,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(KernelError::system(format!("reading {}", path.display()), e)),
    };
    let mut removed = false;
    if made
        && let Some(index) = netlink::interface_index(interface)?
        && netlink::has_clsact(index)?
    {
        let mut used = false;
        for direction in [Direction::Ingress, Direction::Egress] {
            used |= !netlink::filters(index, direction)?.is_empty();
        }
        if !used {
            netlink::delete_clsact(index)?;
            removed = true;
        }
    }
    remove_record(pins, interface)?;
    Ok(removed)
}
