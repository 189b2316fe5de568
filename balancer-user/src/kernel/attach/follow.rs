//! What a process does that stays: it forgets interfaces that went, and lets go of some of many.

use balancer_ebpf::abi::SnatPorts;

use super::{
    super::{Datapath, KernelError},
    DIRECTIONS, Hook, Link, clsact,
    devices::{self, Asked},
    tcx, xdp,
};

impl Datapath {
    /// Has reals see other ports where an interface asks for source translation. Flows keep theirs.
    /// True: they were others.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub fn set_snat_ports(&mut self, ports: SnatPorts) -> Result<bool, KernelError> {
        devices::set_ports(&self.view.pins, ports)
    }

    /// Removes what is recorded of interfaces that were deleted, so that names which never come
    /// back do not pile up, and notes the addresses of the others. Returns the names, sorted.
    ///
    /// # Errors
    /// A pin cannot be read or removed.
    pub fn forget_gone_interfaces(&mut self) -> Result<Vec<String>, KernelError> {
        let pins = &self.view.pins;
        let mut gone = tcx::forget_gone(pins)?;
        gone.extend(clsact::forget_gone(pins)?);
        gone.extend(xdp::forget_gone(pins)?);
        devices::note(pins, &Asked::new(), None)?;
        gone.sort();
        gone.dedup();
        Ok(gone)
    }

    /// Takes our programs off one interface. Returns the links that were there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&mut self, interface: &str) -> Result<Vec<Link>, KernelError> {
        let links: Vec<Link> =
            self.view.links()?.into_iter().filter(|link| link.interface == interface).collect();
        let pins = &self.view.pins;
        for direction in DIRECTIONS {
            for link in links.iter().filter(|link| link.direction == direction) {
                match link.hook {
                    Hook::Tcx => tcx::detach(pins, interface, direction)?,
                    Hook::Clsact => {
                        clsact::detach(interface, direction, Some(link.program))?;
                    }
                    Hook::Xdp | Hook::XdpGeneric => xdp::detach(pins, interface)?,
                }
            }
        }
        if links.iter().any(|link| link.hook == Hook::Clsact) {
            clsact::give_up_qdisc(pins, interface)?;
        }
        devices::note(pins, &Asked::new(), None)?;
        Ok(links)
    }
}
