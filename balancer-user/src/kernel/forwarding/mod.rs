//! Between which interfaces packets may go past the stack, and what stands against it.
//!
//! What goes past the stack meets no rule of a firewall, is not followed by conntrack, and is not
//! seen by programs behind ours. So it is first asked who would miss it: what cannot be asked counts
//! as somebody.

mod judge;
mod netfilter;

use std::{collections::BTreeMap, time::Duration};

use balancer_ebpf::abi::interface_flags;

use self::judge::Candidate;
pub use self::judge::{Judged, Obstacle};
use super::{Datapath, Hook, KernelError, View, interfaces, layout::INTERFACES_MAX};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// The stack.
    #[default]
    Stack,
    /// Past the stack where nobody would miss packets.
    Auto,
    /// Past the stack wherever that is possible.
    Direct,
}

impl Asked {
    /// The bit of `INTERFACES` that says so.
    fn flag(self) -> u32 {
        match self {
            Self::Stack => 0,
            Self::Auto => interface_flags::AUTO,
            Self::Direct => interface_flags::FORCED,
        }
    }
}

/// Interfaces with programs of ours, as they were found at one moment.
#[derive(Clone, Debug, Default)]
pub struct Hooked(Vec<Candidate>);

/// What `INTERFACES` says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// What was asked for when it was written.
    pub asked: Asked,
    /// Interfaces between which packets go past the stack, and whether what is sent to them is put
    /// into the namespace of their other end at once.
    pub direct: BTreeMap<u32, bool>,
    /// Nobody has looked for so long that the stack has all packets again.
    pub ended: bool,
}

impl View {
    /// Interfaces of the calling thread's namespace with programs of ours.
    ///
    /// # Errors
    /// The kernel refuses to list them, or a pin cannot be read.
    pub fn hooked(&self) -> Result<Hooked, KernelError> {
        let links = self.links()?;
        let foreign = self.foreign_programs()?;
        let mut candidates = Vec::new();
        for interface in interfaces()? {
            let ours = links.iter().filter(|link| link.live && link.interface == interface.name);
            let mut ours = ours.peekable();
            if ours.peek().is_none() {
                continue;
            }
            let tc = ours.filter(|link| matches!(link.hook, Hook::Tcx | Hook::Clsact));
            let hooked = tc.map(|link| link.direction).collect();
            let others = foreign.iter().filter(|program| program.interface == interface.name);
            candidates.push(Candidate {
                hooked,
                foreign: others.map(|one| (one.direction, one.hook, one.name.clone())).collect(),
                index: interface.index,
                loopback: interface.loopback,
                part: interface.part,
                veth_elsewhere: interface.veth && interface.elsewhere,
                queue: interface.queue,
                name: interface.name,
            });
        }
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Hooked(candidates))
    }

    /// What `INTERFACES` says.
    ///
    /// # Errors
    /// A system call on the map failed.
    pub fn forwarding(&self) -> Result<Forwarding, KernelError> {
        let mut forwarding = Forwarding::default();
        for (index, flags, left) in self.interface_flags()? {
            if left == Some(Duration::ZERO) {
                forwarding.ended = true;
            }
            if index == interface_flags::ASKED {
                let mut asked = [Asked::Direct, Asked::Auto].into_iter();
                forwarding.asked = asked.find(|one| flags & one.flag() != 0).unwrap_or_default();
            } else if flags & interface_flags::DIRECT != 0 && left != Some(Duration::ZERO) {
                forwarding.direct.insert(index, flags & interface_flags::PEER != 0);
            }
        }
        Ok(forwarding)
    }
}

impl Hooked {
    /// Judges each interface by what the calling thread's namespace does to packets now.
    pub fn judge(&self, asked: Asked) -> Vec<Judged> {
        let rules = netfilter::rules();
        let mut judged = judge::judge(&rules, &self.0, asked == Asked::Direct);
        if asked == Asked::Stack {
            for one in &mut judged {
                (one.direct, one.peer, one.obstacles) = (false, false, vec![Obstacle::Asked]);
            }
        }
        // One element says what was asked for.
        for one in judged.iter_mut().filter(|one| one.direct).skip(INTERFACES_MAX as usize - 1) {
            (one.direct, one.peer) = (false, false);
            one.obstacles.push(Obstacle::NoRoom);
        }
        judged
    }
}

impl Datapath {
    /// Has packets go past the stack between the interfaces that are judged so, and between no
    /// others. What is no longer among them is taken out first. `lease`: how long that holds unless
    /// it is said again; then the stack has all packets. `None`: for good.
    ///
    /// # Errors
    /// A system call on the map failed, or the kernel runs no program that reads its clock.
    pub fn forward(
        &mut self,
        asked: Asked,
        judged: &[Judged],
        lease: Option<Duration>,
    ) -> Result<(), KernelError> {
        let direct = judged.iter().filter(|one| one.direct).map(|one| {
            let peer = if one.peer { interface_flags::PEER } else { 0 };
            (one.index, interface_flags::DIRECT | peer)
        });
        let mut wanted: BTreeMap<u32, u32> = direct.collect();
        if asked != Asked::Stack {
            wanted.insert(interface_flags::ASKED, asked.flag());
        }
        self.set_interface_flags(&wanted, lease)
    }
}
