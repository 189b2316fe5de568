//! Source translation: the ports that reals see, and what a person should know.

use balancer_ebpf::abi::SnatPorts;

use super::Node;
use crate::{
    kernel::{KernelError, Snat, SnatFinding},
    settings::{PortRange, Settings},
};

/// As the programs have it.
pub(super) fn of_kernel(ports: PortRange) -> SnatPorts {
    SnatPorts { first: ports.first().into(), count: ports.count() }
}

/// The ports that a configuration names; `None`: it is silent.
pub(super) fn configured(settings: &Settings) -> Option<PortRange> {
    settings.present.iter().any(|key| key == "snat").then_some(settings.snat_ports)
}

impl Node {
    /// Has reals see other ports where an interface asks for source translation. Flows keep theirs.
    /// True: they were others.
    ///
    /// # Errors
    /// Nothing is loaded, or the map cannot be opened.
    pub fn set_snat_ports(&mut self, ports: PortRange) -> Result<bool, KernelError> {
        self.loaded()?.set_snat_ports(of_kernel(ports))
    }

    /// Where source translation is asked for, and what a person should know of it. `None`: nowhere.
    ///
    /// # Errors
    /// Nothing is loaded, or what the kernel says.
    pub fn snat(&mut self) -> Result<Option<(Snat, Vec<SnatFinding>)>, KernelError> {
        let datapath = self.loaded()?;
        let Some(snat) = datapath.snat()? else { return Ok(None) };
        Ok(Some((snat, datapath.snat_findings()?)))
    }
}
