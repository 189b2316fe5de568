//! tcx links (Linux 6.6): pinned, so they outlive us, and gone when the pin is removed.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions,
};

use super::{
    super::{
        KernelError,
        layout::{Pins, escape_interface, unescape_interface},
        program_failed, sys,
    },
    Direction, Hook, Link,
};

/// Where the link of this interface and direction is pinned.
pub(super) fn pin(pins: &Pins, interface: &str, direction: Direction) -> PathBuf {
    let suffix = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    pins.links().join(format!("{}-{suffix}", escape_interface(interface)))
}

/// The links that are pinned.
pub(super) fn links(pins: &Pins) -> Result<Vec<Link>, KernelError> {
    let mut links = Vec::new();
    for name in super::names(&pins.links())? {
        let (interface, direction) = match name.rsplit_once('-') {
            Some((interface, "in")) => (interface, Direction::Ingress),
            Some((interface, "out")) => (interface, Direction::Egress),
            _ => continue,
        };
        let interface = unescape_interface(interface);
        let info = Info::of(pins, &interface, direction)?;
        let live = info.is_some_and(|i| i.interface != 0)
            && info.map(|i| i.interface) == super::super::netlink::interface_index(&interface)?;
        let program = info.map_or(0, |i| i.program);
        links.push(Link { interface, direction, hook: Hook::Tcx, mode: None, program, live });
    }
    Ok(links)
}

/// What the kernel says of a pinned link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) program: u32,
    /// 0: the interface is gone.
    pub(super) interface: u32,
}

impl Info {
    fn of(pins: &Pins, interface: &str, direction: Direction) -> Result<Option<Self>, KernelError> {
        Self::at(&pin(pins, interface, direction))
    }

    /// Of the link that is pinned there, if one is.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, KernelError> {
        let failed = |e| KernelError::system(format!("opening link {}", path.display()), e);
        let fd = match sys::open_pin(path) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        // aya's LinkInfo does not tell the interface; the descriptor's page in proc does.
        let text =
            fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(failed)?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        Ok(Some(Self {
            program: field("prog_id").unwrap_or(0),
            interface: field("ifindex").unwrap_or(0),
        }))
    }
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// Ids and names of all programs on the hook.
pub(super) fn programs(
    interface: &str,
    direction: Direction,
) -> Result<Vec<(u32, String)>, KernelError> {
    match SchedClassifier::query_tcx(interface, attach_type(direction)) {
        Ok((_, programs)) => Ok(programs
            .iter()
            .map(|p| (p.id(), String::from_utf8_lossy(p.name()).into_owned()))
            .collect()),
        Err(e) if lacks_tcx(&e) => Ok(Vec::new()),
        // Names are for CAP_SYS_ADMIN only, which the agent has given up; ids are not.
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EPERM) => {
            let ids = ids(interface, direction)
                .map_err(|e| KernelError::system(format!("listing programs of {interface}"), e))?;
            Ok(ids.into_iter().map(|id| (id, format!("(id {id})"))).collect())
        }
        Err(e) => Err(program_failed(format!("listing programs of {interface}"), e)),
    }
}

/// `bpf_attr.query` (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Query {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Ids of all programs on the hook.
fn ids(interface: &str, direction: Direction) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_int = 16;
    /// As many as a tcx hook takes (`BPF_MPROG_MAX`, linux/bpf_mprog.h).
    const PROGRAMS_MAX: usize = 64;
    let attach_type = match direction {
        Direction::Ingress => 46,
        Direction::Egress => 47,
    };
    let mut ids = vec![0u32; PROGRAMS_MAX];
    let mut query = Query {
        interface: nix::net::if_::if_nametoindex(interface)?,
        attach_type,
        programs: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        ..Query::default()
    };
    sys::bpf(BPF_PROG_QUERY, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// Whether the kernel has tcx: lists the programs on the loopback, which every network
/// namespace has.
pub(super) fn known() -> Result<bool, KernelError> {
    let interfaces = super::super::netlink::interfaces()?;
    let loopback = interfaces.iter().find(|i| i.loopback).ok_or_else(|| {
        let none = io::Error::other("this network namespace has no loopback");
        KernelError::system("asking for tcx", none)
    })?;
    match SchedClassifier::query_tcx(&loopback.name, TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(e) if lacks_tcx(&e) => Ok(false),
        Err(e) => Err(program_failed("asking for tcx".into(), e)),
    }
}

/// Whether the kernel does not know tcx. It says EINVAL to the attach type, on every call.
fn lacks_tcx(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(e) => {
            matches!(e.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
        }
        _ => false,
    }
}

/// What became of an attempt.
pub(super) enum Outcome {
    Made(Link),
    Adopted(Link),
    /// This kernel has no tcx.
    Unknown,
}

/// Makes a link, or adopts the one that is pinned. A pin whose interface is gone or another one
/// by now is replaced.
pub(super) fn attach(
    pins: &Pins,
    program: &mut SchedClassifier,
    interface: &str,
    index: u32,
    direction: Direction,
) -> Result<Outcome, KernelError> {
    let action = || format!("attaching to {interface} ({})", direction.name());
    let id = program.info().map_err(|e| program_failed(action(), e))?.id();
    let link = Link {
        interface: interface.into(),
        direction,
        hook: Hook::Tcx,
        mode: None,
        program: id,
        live: true,
    };
    let path = pin(pins, interface, direction);
    if let Some(info) = Info::of(pins, interface, direction)? {
        // The same index may be another interface of another namespace: ask the hook too.
        let there = info.interface == index
            && programs(interface, direction)?.iter().any(|(on_hook, _)| *on_hook == info.program);
        if there && info.program == id {
            return Ok(Outcome::Adopted(link));
        }
        detach(pins, interface, direction)?;
    }
    // Asking the hook is quick; looking through all pins is not.
    if programs(interface, direction)?.iter().any(|(on_hook, _)| *on_hook == id)
        && let Some(before) = renamed(pins, index, direction)?
    {
        let before = pin(pins, &before, direction);
        fs::rename(&before, &path).map_err(|e| {
            KernelError::system(format!("renaming {} to {}", before.display(), path.display()), e)
        })?;
        return Ok(Outcome::Adopted(link));
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let made = match program.attach_with_options(interface, attach_type(direction), order) {
        Ok(made) => made,
        Err(e) if lacks_tcx(&e) => return Ok(Outcome::Unknown),
        Err(e) => return Err(program_failed(action(), e)),
    };
    let taken = program.take_link(made).map_err(|e| program_failed(action(), e))?;
    let taken =
        FdLink::try_from(taken).map_err(|e| KernelError::system(action(), io::Error::other(e)))?;
    taken.pin(&path).map_err(|e| {
        KernelError::system(format!("pinning {}", path.display()), io::Error::other(e))
    })?;
    Ok(Outcome::Made(link))
}

/// The name under which a link of interface `index` is pinned: the interface was renamed since.
fn renamed(pins: &Pins, index: u32, direction: Direction) -> Result<Option<String>, KernelError> {
    for link in links(pins)? {
        // A link whose name still fits its interface is no former name of another.
        if link.direction == direction
            && !link.live
            && Info::of(pins, &link.interface, direction)?.is_some_and(|i| i.interface == index)
        {
            return Ok(Some(link.interface));
        }
    }
    Ok(None)
}

/// Removes the pins of links whose interface was deleted. Returns the names of those.
pub(super) fn forget_gone(pins: &Pins) -> Result<Vec<String>, KernelError> {
    let mut gone = Vec::new();
    for link in links(pins)?.into_iter().filter(|link| !link.live) {
        if Info::of(pins, &link.interface, link.direction)?.is_some_and(|i| i.interface == 0) {
            detach(pins, &link.interface, link.direction)?;
            gone.push(link.interface);
        }
    }
    Ok(gone)
}

/// Takes the program off and removes the pin.
pub(super) fn detach(
    pins: &Pins,
    interface: &str,
    direction: Direction,
) -> Result<(), KernelError> {
    detach_pin(&pin(pins, interface, direction))
}

/// Takes off the program of the link that is pinned there, and removes the pin.
pub(super) fn detach_pin(path: &Path) -> Result<(), KernelError> {
    let failed = |e| KernelError::system(format!("detaching {}", path.display()), e);
    let link = sys::open_pin(path).map_err(failed)?;
    match sys::detach_link(link.as_fd()) {
        // The interface took it along.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => {}
        other => other.map_err(failed)?,
    }
    fs::remove_file(path)
        .map_err(|e| KernelError::system(format!("removing {}", path.display()), e))
}
