//! What a process does that stays: it forgets interfaces that went, and lets go of some of many.

use super::{
    super::{Datapath, KernelError},
    DIRECTIONS, Hook, Link, clsact, tcx, xdp,
};

impl Datapath {
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
        xdp::note_devices(pins)?;
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
                    Hook::Xdp | Hook::XdpGeneric => {
                        xdp::detach(pins, interface)?;
                        xdp::note_devices(pins)?;
                    }
                }
            }
        }
        if links.iter().any(|link| link.hook == Hook::Clsact) {
            clsact::give_up_qdisc(pins, interface)?;
        }
        Ok(links)
    }
}
