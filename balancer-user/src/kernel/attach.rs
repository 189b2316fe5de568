//! Putting the programs on interfaces, and taking them off again.

use super::{Datapath, KernelError, View, layout::Pins};

/// An interface to attach to, both directions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Name in the current network namespace.
    pub interface: String,
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Use clsact filters even where tcx exists.
    pub force_clsact: bool,
}

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

impl Datapath {
    /// Attaches ingress and egress of each interface. What is attached already is adopted; if
    /// one fails, those that this call made are undone.
    ///
    /// # Errors
    /// [`KernelError::NoInterface`], [`KernelError::ForeignFilter`], …
    pub fn attach(
        &mut self,
        attachments: &[Attachment],
        options: AttachOptions,
    ) -> Result<Attached, KernelError> {
        let _ = (attachments, options);
        Err(KernelError::Object("attaching is not part of this build".into()))
    }
}

impl View {
    /// Our programs on interfaces, sorted.
    ///
    /// # Errors
    /// A pin cannot be read.
    pub fn links(&self) -> Result<Vec<Link>, KernelError> {
        Err(KernelError::Object("links are not part of this build".into()))
    }

    /// Programs of others on the interfaces of [`View::links`].
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn foreign_programs(&self) -> Result<Vec<ForeignProgram>, KernelError> {
        Err(KernelError::Object("links are not part of this build".into()))
    }
}

/// Whether any link or filter of ours is recorded below the pin directory.
pub(crate) fn any_pinned(pins: &Pins) -> Result<bool, KernelError> {
    for dir in [pins.links(), pins.clsact()] {
        match std::fs::read_dir(&dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(KernelError::system(format!("reading {}", dir.display()), e)),
        }
    }
    Ok(false)
}
