//! XDP links: one program on an interface, in its driver or, where asked for by name, before the
//! stack ("generic"). Pinned like tcx links.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::programs::ProgramInfo;
use balancer_ebpf::abi::program_names;

use super::{
    super::{
        KernelError,
        layout::{Pins, escape_interface, unescape_interface},
        netlink::{self, Interface},
        program_failed, sys,
    },
    Direction, Hook, Link, XdpMode, XdpOptions,
    tcx::Info,
};

const SUFFIX: &str = "-xdp";

impl XdpMode {
    fn program(self, generic: bool) -> &'static str {
        match (self, generic) {
            (Self::Nat, false) => program_names::XDP_NAT,
            (Self::Nat, true) => program_names::XDP_NAT_GENERIC,
            // One for both: they take frames in one buffer alone.
            (Self::DsrIpip, _) => program_names::XDP_IPIP,
            (Self::DsrL2, _) => program_names::XDP_L2,
        }
    }
}

/// What a person should know of XDP on a veth.
pub fn on_veth(interface: &str, mode: XdpMode) -> String {
    let instead = match mode {
        XdpMode::Nat => "the hook tc".to_owned(),
        _ => format!("XDP before the stack ({})", generic_by_name(interface, mode)),
    };
    format!(
        "native XDP on the veth {interface}: packets of local stacks have no complete checksum \
         there, so checksum and segmentation offloads must be off at both ends (ethtool -K NAME \
         tx off), and the other end must have an XDP program or GRO (ethtool -K NAME gro on), or \
         what is sent to it is lost, and with GRO alone resets and errors wait there for the next \
         packet; every packet is copied, so that bulk costs about three times \
         the CPU; {instead} has none of that"
    )
}

/// What asks on the command line for XDP before the stack.
pub fn generic_by_name(interface: &str, mode: XdpMode) -> String {
    match mode {
        XdpMode::Nat => format!("{interface}=xdp:generic"),
        mode => format!("{interface}=xdp:{}:generic", mode.name()),
    }
}

/// The name of a program, if this process may ask for it.
pub(super) fn program_name(id: u32) -> String {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    name.unwrap_or_else(|| format!("(id {id})"))
}

/// Where the link of this interface is pinned.
fn pin(pins: &Pins, interface: &str) -> PathBuf {
    pins.links().join(format!("{}{SUFFIX}", escape_interface(interface)))
}

/// Interfaces with a pinned link.
fn pinned(pins: &Pins) -> Result<Vec<String>, KernelError> {
    Ok(super::names(&pins.links())?
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX).map(unescape_interface))
        .collect())
}

/// The pinned program for these options, with the kernel's id.
fn program(pins: &Pins, options: XdpOptions) -> Result<(OwnedFd, u32), KernelError> {
    let name = options.mode.program(options.generic);
    let failed = |e| program_failed(format!("opening program {name}"), e);
    let id = ProgramInfo::from_pin(pins.program(name)).map_err(failed)?.id();
    let fd = sys::open_pin(&pins.program(name))
        .map_err(|e| KernelError::system(format!("opening program {name}"), e))?;
    Ok((fd, id))
}

/// The mode of a pinned program, by the kernel's id.
fn mode(pins: &Pins, id: u32) -> Result<Option<XdpMode>, KernelError> {
    for mode in XdpMode::ALL {
        for generic in [false, true] {
            if program(pins, XdpOptions { mode, generic })?.1 == id {
                return Ok(Some(mode));
            }
        }
    }
    Ok(None)
}

/// The links that are pinned.
pub(super) fn links(pins: &Pins) -> Result<Vec<Link>, KernelError> {
    let names = pinned(pins)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let present = netlink::interfaces()?;
    let mut links = Vec::new();
    for interface in names {
        let info = Info::at(&pin(pins, &interface))?;
        let program = info.map_or(0, |info| info.program);
        let found = present.iter().find(|i| i.name == interface);
        let there = found.filter(|i| info.is_some_and(|info| info.interface == i.index));
        let xdp = there.and_then(|i| i.xdp).filter(|xdp| xdp.program == program);
        links.push(Link {
            interface,
            direction: Direction::Ingress,
            hook: if xdp.is_some_and(|xdp| xdp.generic) { Hook::XdpGeneric } else { Hook::Xdp },
            mode: mode(pins, program)?,
            program,
            live: xdp.is_some(),
        });
    }
    Ok(links)
}

/// Makes a link, adopts the one that is pinned, or lets it carry the program of another mode, of
/// which no packet sees anything in between. True: something was made or changed.
pub(super) fn attach(
    pins: &Pins,
    interface: &Interface,
    options: XdpOptions,
) -> Result<(bool, Link), KernelError> {
    let (name, index) = (interface.name.as_str(), interface.index);
    let (program, id) = program(pins, options)?;
    let link = Link {
        interface: name.into(),
        direction: Direction::Ingress,
        hook: if options.generic { Hook::XdpGeneric } else { Hook::Xdp },
        mode: Some(options.mode),
        program: id,
        live: true,
    };
    let path = pin(pins, name);
    if let Some(info) = Info::at(&path)? {
        let there = interface.xdp.filter(|xdp| {
            info.interface == index && xdp.program == info.program && xdp.generic == options.generic
        });
        match there {
            Some(_) if info.program == id => return Ok((false, link)),
            Some(_) => {
                let pinned = sys::open_pin(&path)
                    .map_err(|e| KernelError::system(format!("opening {}", path.display()), e))?;
                // A driver may run one program and not the other: some take frames in one buffer.
                sys::update_link(pinned.as_fd(), program.as_fd())
                    .map_err(|e| refused(name, options, e))?;
                return Ok((true, link));
            }
            None => detach(pins, name)?,
        }
    } else if let Some(before) = renamed(pins, index)? {
        let before = pin(pins, &before);
        std::fs::rename(&before, &path).map_err(|e| {
            KernelError::system(format!("renaming {} to {}", before.display(), path.display()), e)
        })?;
        return attach(pins, interface, options);
    }
    // As it is now: the list may have been made before a link of ours went.
    if let Some(xdp) =
        netlink::interfaces()?.into_iter().find(|i| i.index == index).and_then(|i| i.xdp)
    {
        return Err(KernelError::ForeignXdp { interface: name.into(), program: xdp.program });
    }
    let made = sys::link_xdp(program.as_fd(), index, options.generic)
        .map_err(|e| refused(name, options, e))?;
    sys::pin(made.as_fd(), &path)
        .map_err(|e| KernelError::system(format!("pinning {}", path.display()), e))?;
    Ok((true, link))
}

/// Why the kernel refuses, in words that say what to do.
fn refused(interface: &str, options: XdpOptions, error: io::Error) -> KernelError {
    match error.raw_os_error() {
        // The driver says so, or that it cannot with the MTU or the offloads that are set.
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) if !options.generic => {
            KernelError::NoNativeXdp {
                interface: interface.into(),
                generic: generic_by_name(interface, options.mode),
                error,
            }
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            KernelError::ForeignXdp { interface: interface.into(), program: 0 }
        }
        _ => KernelError::system(format!("attaching to {interface} (xdp)"), error),
    }
}

/// The name under which the link of interface `index` is pinned: it was renamed since.
fn renamed(pins: &Pins, index: u32) -> Result<Option<String>, KernelError> {
    for interface in pinned(pins)? {
        if Info::at(&pin(pins, &interface))?.is_some_and(|info| info.interface == index)
            && netlink::interface_index(&interface)? != Some(index)
        {
            return Ok(Some(interface));
        }
    }
    Ok(None)
}

/// Removes the pins of links whose interface was deleted. Returns the names of those.
pub(super) fn forget_gone(pins: &Pins) -> Result<Vec<String>, KernelError> {
    let mut gone = Vec::new();
    for interface in pinned(pins)? {
        if Info::at(&pin(pins, &interface))?.is_some_and(|info| info.interface == 0) {
            detach(pins, &interface)?;
            gone.push(interface);
        }
    }
    Ok(gone)
}

/// Takes the program off and removes the pin, if there is one. True: there was.
pub(super) fn detach_if_attached(pins: &Pins, interface: &str) -> Result<bool, KernelError> {
    let there = pin(pins, interface).exists();
    if there {
        detach(pins, interface)?;
    }
    Ok(there)
}

/// Takes the program off and removes the pin.
pub(super) fn detach(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    super::tcx::detach_pin(&pin(pins, interface))
}

/// Interfaces on which reals answer by themselves.
pub(super) fn one_way(pins: &Pins) -> Result<Vec<String>, KernelError> {
    let links = links(pins)?.into_iter();
    Ok(links.filter(|l| l.mode.is_some_and(XdpMode::is_dsr)).map(|l| l.interface).collect())
}
