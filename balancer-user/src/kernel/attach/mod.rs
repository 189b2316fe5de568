//! Putting the programs on interfaces, and taking them off again.

//!
//! tcx links where the kernel has them, else filters of the clsact qdisc; which of them is found
//! out by trying. Never a second link, never a program of somebody else touched.

mod asked;
mod clsact;
mod devices;
mod follow;
mod tcx;
mod xdp;

use std::{fs, io, path::Path};

use aya::programs::SchedClassifier;
use balancer_ebpf::abi::program_names;

use self::tcx::Outcome;
pub use self::{
    asked::{AttachOptions, Attachment, XdpMode, XdpOptions},
    devices::without_source as tunnels_without_source,
    xdp::{generic_by_name as xdp_generic_by_name, on_veth as xdp_on_veth},
};
use self::{
    asked::{Chosen, chosen},
    devices::Asked,
};
use super::{
    Datapath, KernelError, View,
    layout::Pins,
    netlink::{self, Interface},
    program_failed,
};

/// Which packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

/// What the kernel offers to attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A tcx link (Linux 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
    /// An XDP link, in the driver.
    Xdp,
    /// An XDP link, before the stack.
    XdpGeneric,
}

/// One of our programs on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface.
    pub interface: String,
    /// Direction.
    pub direction: Direction,
    /// By what.
    pub hook: Hook,
    /// What an XDP link does.
    pub mode: Option<XdpMode>,
    /// The kernel's id of the program.
    pub program: u32,
    /// Still on the interface; false where the interface was deleted since, or is in another
    /// network namespace.
    pub live: bool,
}

/// Somebody else's program on an interface of ours. Never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// Interface.
    pub interface: String,
    /// Direction.
    pub direction: Direction,
    /// By what.
    pub hook: Hook,
    /// The kernel's id of the program; 0 where it is no BPF program.
    pub program: u32,
    /// Its name.
    pub name: String,
}

/// What [`Datapath::attach`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Links made by this call.
    pub made: Vec<Link>,
    /// Links that were there.
    pub adopted: Vec<Link>,
    /// Programs of others beside ours.
    pub foreign: Vec<ForeignProgram>,
    /// What a person should know: an interface is down, or the loopback.
    pub warnings: Vec<String>,
}

impl Direction {
    /// `ingress` or `egress`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The program of this direction.
    fn program(self) -> &'static str {
        match self {
            Self::Ingress => program_names::INGRESS,
            Self::Egress => program_names::EGRESS,
        }
    }
}

impl Hook {
    /// `tcx`, `clsact`, `xdp` or `xdp-generic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        }
    }
}

/// Whether the kernel has tcx.
pub(crate) fn knows_tcx() -> Result<bool, KernelError> {
    tcx::known()
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Datapath {
    /// Attaches to each interface, in the calling thread's network
    /// namespace. What is attached already is adopted; if one fails, those that this call made
    /// are undone. Publish first: from here on packets meet whatever is published.
    ///
    /// # Errors
    /// [`KernelError::NoInterface`] before anything is attached, [`KernelError::ForeignFilter`],
    /// [`KernelError::ForeignXdp`], [`KernelError::NoNativeXdp`], or what the kernel says.
    pub fn attach(
        &mut self,
        attachments: &[Attachment],
        options: AttachOptions,
    ) -> Result<Attached, KernelError> {
        let interfaces = chosen(attachments)?;
        let mut attached = Attached::default();
        let pins = &self.view.pins;
        let snat: Asked = interfaces.iter().map(|one| (one.interface.index, one.snat)).collect();
        // Before the programs are there: a flow stays what it was begun as.
        let before = devices::announce(pins, &snat, options.snat_ports)?;
        for one in &interfaces {
            if let Err(e) = attach_all(pins, one, options, &mut attached) {
                undo(pins, &attached.made, &before)?;
                return Err(e);
            }
        }
        devices::note(pins, &snat, options.snat_ports)?;
        let mine: Vec<&str> = interfaces.iter().map(|one| one.interface.name.as_str()).collect();
        attached.foreign = self.view.foreign_programs()?;
        attached.foreign.retain(|f| mine.contains(&f.interface.as_str()));
        Ok(attached)
    }
}

/// Attaches whatever is asked for at one interface.
fn attach_all(
    pins: &Pins,
    Chosen { interface, xdp, .. }: &Chosen,
    options: AttachOptions,
    attached: &mut Attached,
) -> Result<(), KernelError> {
    if !interface.up {
        attached
            .warnings
            .push(format!("interface {} is down: packets come once it is set up", interface.name));
    }
    if interface.loopback {
        attached.warnings.push(format!(
            "interface {} is the loopback: only the node's own connections pass it",
            interface.name
        ));
    }
    for direction in DIRECTIONS {
        attach_one(pins, interface, direction, options, attached)?;
    }
    attach_xdp(pins, interface, *xdp, attached)
}

/// Attaches XDP where it is asked for, and takes it off where it is not.
fn attach_xdp(
    pins: &Pins,
    interface: &Interface,
    options: Option<XdpOptions>,
    attached: &mut Attached,
) -> Result<(), KernelError> {
    let Some(options) = options else {
        xdp::detach_if_attached(pins, &interface.name)?;
        return Ok(());
    };
    let (made, link) = xdp::attach(pins, interface, options)?;
    if interface.veth && !options.generic {
        attached.warnings.push(xdp::on_veth(&interface.name, options.mode));
    }
    if options.mode == XdpMode::DsrIpip {
        attached.warnings.extend(devices::without_source(&interface.name)?);
    }
    if made {
        attached.made.push(link);
    } else {
        attached.adopted.push(link);
    }
    Ok(())
}

fn attach_one(
    pins: &Pins,
    interface: &Interface,
    direction: Direction,
    options: AttachOptions,
    attached: &mut Attached,
) -> Result<(), KernelError> {
    let (name, index) = (interface.name.as_str(), interface.index);
    let mut program = pinned_program(pins, direction)?;
    // One of both hooks, or each packet would be seen twice.
    let recorded = clsact::recorded(pins)?.iter().any(|r| r == name)
        && clsact::links(pins, program_ids(pins)?)?.iter().any(|l| l.interface == name && l.live);
    if !options.force_clsact && !recorded {
        match tcx::attach(pins, &mut program, name, index, direction)? {
            Outcome::Made(link) => {
                attached.made.push(link);
                return Ok(());
            }
            Outcome::Adopted(link) => {
                attached.adopted.push(link);
                return Ok(());
            }
            Outcome::Unknown => {}
        }
    }
    let (made, link) = clsact::attach(pins, &mut program, name, index, direction)?;
    if made {
        attached.made.push(link)
    } else {
        attached.adopted.push(link)
    }
    Ok(())
}

fn pinned_program(pins: &Pins, direction: Direction) -> Result<SchedClassifier, KernelError> {
    let name = direction.program();
    SchedClassifier::from_pin(pins.program(name))
        .map_err(|e| program_failed(format!("opening program {name}"), e))
}

/// Ids of the pinned ingress and egress programs.
fn program_ids(pins: &Pins) -> Result<[u32; 2], KernelError> {
    let id = |direction: Direction| {
        let info = pinned_program(pins, direction)?.info();
        let failed = |e| program_failed(format!("asking program {}", direction.program()), e);
        Ok::<_, KernelError>(info.map_err(failed)?.id())
    };
    Ok([id(Direction::Ingress)?, id(Direction::Egress)?])
}

/// Our programs on interfaces, by whatever hook.
fn all_links(pins: &Pins) -> Result<Vec<Link>, KernelError> {
    let mut links = tcx::links(pins)?;
    links.extend(xdp::links(pins)?);
    if !clsact::recorded(pins)?.is_empty() {
        links.extend(clsact::links(pins, program_ids(pins)?)?);
    }
    Ok(links)
}

/// Takes off what [`Datapath::attach`] made before it failed. `snat`: what was asked of the
/// interfaces before.
fn undo(pins: &Pins, made: &[Link], snat: &Asked) -> Result<(), KernelError> {
    for link in made.iter().rev() {
        match link.hook {
            Hook::Tcx => tcx::detach(pins, &link.interface, link.direction)?,
            Hook::Clsact => {
                clsact::detach(&link.interface, link.direction, Some(link.program))?;
            }
            Hook::Xdp | Hook::XdpGeneric => xdp::detach(pins, &link.interface)?,
        }
    }
    devices::note(pins, snat, None)?;
    for interface in clsact::recorded(pins)? {
        let ours = made.iter().any(|l| l.hook == Hook::Clsact && l.interface == interface);
        if ours {
            clsact::give_up_qdisc(pins, &interface)?;
        }
    }
    Ok(())
}

impl View {
    /// Our programs on interfaces, sorted by interface and direction.
    ///
    /// # Errors
    /// A pin cannot be read.
    pub fn links(&self) -> Result<Vec<Link>, KernelError> {
        let mut links = all_links(&self.pins)?;
        links.sort_by(|a, b| {
            (&a.interface, a.direction, a.hook).cmp(&(&b.interface, b.direction, b.hook))
        });
        Ok(links)
    }

    /// Interfaces on which reals answer clients by themselves.
    ///
    /// # Errors
    /// A pin cannot be read.
    pub fn one_way_interfaces(&self) -> Result<Vec<String>, KernelError> {
        xdp::one_way(&self.pins)
    }

    /// Programs of others on the interfaces of [`View::links`].
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn foreign_programs(&self) -> Result<Vec<ForeignProgram>, KernelError> {
        let links = self.links()?;
        let mut foreign = Vec::new();
        let present = netlink::interfaces()?;
        for link in links.iter().filter(|l| l.live) {
            if matches!(link.hook, Hook::Xdp | Hook::XdpGeneric) {
                // One XDP program has no room for another.
                continue;
            }
            let xdp = present.iter().find(|i| i.name == link.interface).and_then(|i| i.xdp);
            if let Some(xdp) = xdp
                && link.direction == Direction::Ingress
                && !links
                    .iter()
                    .any(|other| other.interface == link.interface && other.program == xdp.program)
            {
                foreign.push(ForeignProgram {
                    interface: link.interface.clone(),
                    direction: Direction::Ingress,
                    hook: if xdp.generic { Hook::XdpGeneric } else { Hook::Xdp },
                    program: xdp.program,
                    name: xdp::program_name(xdp.program),
                });
            }
            let Some(index) = netlink::interface_index(&link.interface)? else { continue };
            let row = |hook, program, name| ForeignProgram {
                interface: link.interface.clone(),
                direction: link.direction,
                hook,
                program,
                name,
            };
            for (id, name) in tcx::programs(&link.interface, link.direction)? {
                if link.hook != Hook::Tcx || id != link.program {
                    foreign.push(row(Hook::Tcx, id, name));
                }
            }
            if netlink::has_clsact(index)? {
                for filter in netlink::filters(index, link.direction)? {
                    if link.hook != Hook::Clsact || filter.program != link.program {
                        let name = if filter.program == 0 { filter.kind } else { filter.name };
                        foreign.push(row(Hook::Clsact, filter.program, name));
                    }
                }
            }
        }
        Ok(foreign)
    }
}

/// What [`detach_all`] took off.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    pub(crate) links: Vec<String>,
    pub(crate) qdiscs: Vec<String>,
}

/// Takes everything of ours off every interface.
pub(crate) fn detach_all(pins: &Pins) -> Result<Detached, KernelError> {
    let mut detached = Detached::default();
    for link in xdp::links(pins)? {
        xdp::detach(pins, &link.interface)?;
        detached.links.push(format!(
            "{} {} ({})",
            link.interface,
            link.direction.name(),
            link.hook.name()
        ));
    }
    for link in tcx::links(pins)? {
        tcx::detach(pins, &link.interface, link.direction)?;
        detached.links.push(format!("{} {} (tcx)", link.interface, link.direction.name()));
    }
    for interface in clsact::recorded(pins)? {
        for direction in DIRECTIONS {
            let program = if pins.program(direction.program()).exists() {
                let info = pinned_program(pins, direction)?.info();
                let failed = |e| program_failed("asking a pinned program".into(), e);
                Some(info.map_err(failed)?.id())
            } else {
                None
            };
            if clsact::detach(&interface, direction, program)? {
                detached.links.push(format!("{interface} {} (clsact)", direction.name()));
            }
        }
        if clsact::give_up_qdisc(pins, &interface)? {
            detached.qdiscs.push(interface);
        }
    }
    Ok(detached)
}

/// The entries of a directory below the pins, sorted; none where it does not exist.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, KernelError> {
    let failed = |e| KernelError::system(format!("reading {}", dir.display()), e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>, KernelError>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Whether any link or filter of ours is recorded below the pin directory.
pub(crate) fn any_pinned(pins: &Pins) -> Result<bool, KernelError> {
    Ok(!names(&pins.links())?.is_empty() || !names(&pins.clsact())?.is_empty())
}
