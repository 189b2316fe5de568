//! Whether packets go past the stack, judged anew whenever something about it may have changed.

use std::time::Duration;

use super::Node;
use crate::{
    kernel::{Asked, Hooked, Judged, KernelError},
    settings::Forwarding,
};

impl From<Forwarding> for Asked {
    fn from(forwarding: Forwarding) -> Self {
        match forwarding {
            Forwarding::Auto => Self::Auto,
            Forwarding::Stack => Self::Stack,
            Forwarding::Direct => Self::Direct,
        }
    }
}

/// How packets are sent on, as it was judged last, and for which interfaces.
#[derive(Debug, Default)]
pub struct Sending {
    hooked: Hooked,
    /// Each interface with programs of ours, by name.
    pub judged: Vec<Judged>,
}

impl Node {
    /// Looks which interfaces have programs of ours, judges how packets between them are sent on,
    /// and has the programs do so: for as long as `lease`, or for good.
    ///
    /// # Errors
    /// What the kernel says. Packets then go through the stack, unless the map could not be
    /// written either.
    pub fn send_on(
        &mut self,
        forwarding: Forwarding,
        lease: Option<Duration>,
    ) -> Result<Sending, KernelError> {
        match self.loaded()?.hooked() {
            Ok(hooked) => self.judge(forwarding, hooked, lease),
            Err(error) => {
                self.loaded()?.forward(Asked::Stack, &[], None)?;
                Err(error)
            }
        }
    }

    /// The same for interfaces that are as they were: what the namespace does to packets is asked.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn send_on_as_before(
        &mut self,
        forwarding: Forwarding,
        before: Sending,
        lease: Option<Duration>,
    ) -> Result<Sending, KernelError> {
        self.judge(forwarding, before.hooked, lease)
    }

    fn judge(
        &mut self,
        forwarding: Forwarding,
        hooked: Hooked,
        lease: Option<Duration>,
    ) -> Result<Sending, KernelError> {
        let asked = Asked::from(forwarding);
        let judged = hooked.judge(asked);
        self.loaded()?.forward(asked, &judged, lease)?;
        Ok(Sending { hooked, judged })
    }
}
