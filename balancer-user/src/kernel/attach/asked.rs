//! What is asked of interfaces.

use balancer_ebpf::abi::SnatPorts;

use super::super::{
    KernelError,
    netlink::{self, Interface},
};

/// An interface to attach to. What was asked for last counts: what is there of ours and is not
/// asked for is taken off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Name in the current network namespace.
    pub interface: String,
    /// XDP, with TC behind it for what XDP leaves; `None`: TC alone. TC is both directions.
    pub xdp: Option<XdpOptions>,
    /// Reals see the node as the client of flows that begin with a packet that comes in here. Not
    /// where they answer clients by themselves.
    pub snat: bool,
}

/// How XDP is to work on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct XdpOptions {
    /// What becomes of packets for reals.
    pub mode: XdpMode,
    /// Before the stack instead of in the driver: for drivers without XDP, and slower than TC.
    pub generic: bool,
}

/// How XDP sends packets to reals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum XdpMode {
    /// Translated, and the answers back.
    #[default]
    Nat,
    /// As they are, in a tunnel to reals that answer clients by themselves.
    DsrIpip,
    /// As they are, in frames addressed to reals that answer clients by themselves.
    DsrL2,
}

impl Attachment {
    /// To TC alone.
    pub fn tc(interface: impl Into<String>) -> Self {
        Self { interface: interface.into(), xdp: None, snat: false }
    }

    /// To XDP.
    pub fn xdp(interface: impl Into<String>, options: XdpOptions) -> Self {
        Self { xdp: Some(options), ..Self::tc(interface) }
    }

    /// The same, and reals see the node as the client.
    pub fn with_snat(self) -> Self {
        Self { snat: true, ..self }
    }
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Use clsact filters even where tcx exists.
    pub force_clsact: bool,
    /// The ports that reals see where an interface asks for source translation. `None`: those of
    /// before; where there were none, 61000 to 65535.
    pub snat_ports: Option<SnatPorts>,
}

impl XdpMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Nat, Self::DsrIpip, Self::DsrL2];

    /// `nat`, `dsr-ipip` or `dsr-l2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DsrIpip => "dsr-ipip",
            Self::DsrL2 => "dsr-l2",
        }
    }

    /// Whether reals answer clients by themselves.
    pub fn is_dsr(self) -> bool {
        self != Self::Nat
    }
}

/// An interface that is there, as it was asked for last.
pub(super) struct Chosen {
    pub(super) interface: Interface,
    pub(super) xdp: Option<XdpOptions>,
    pub(super) snat: bool,
}

/// The interfaces asked for, each once.
pub(super) fn chosen(attachments: &[Attachment]) -> Result<Vec<Chosen>, KernelError> {
    let present = netlink::interfaces()?;
    let mut chosen: Vec<Chosen> = Vec::new();
    for Attachment { interface: name, xdp, snat } in attachments {
        let found =
            present.iter().find(|i| i.name == *name).ok_or_else(|| KernelError::NoInterface {
                name: name.clone(),
                present: present.iter().map(|i| i.name.clone()).collect(),
            })?;
        let new = Chosen { interface: found.clone(), xdp: *xdp, snat: *snat };
        match chosen.iter_mut().find(|one| one.interface == *found) {
            Some(one) => *one = new,
            None => chosen.push(new),
        }
    }
    Ok(chosen)
}
