//! Whether packets go past the stack, judged anew whenever something about it may have changed.

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
    /// and has the programs do so.
    ///
    /// # Errors
    /// What the kernel says. Packets then go through the stack, unless the map could not be
    /// written either.
    pub fn send_on(&mut self, forwarding: Forwarding) -> Result<Sending, KernelError> {
        match self.loaded()?.hooked() {
            Ok(hooked) => self.judge(forwarding, hooked),
            Err(error) => {
                self.stop_sending_past_the_stack()?;
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
    ) -> Result<Sending, KernelError> {
        self.judge(forwarding, before.hooked)
    }

    /// Has the stack route all packets.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn stop_sending_past_the_stack(&mut self) -> Result<(), KernelError> {
        self.loaded()?.forward(Asked::Stack, &[])
    }

    fn judge(&mut self, forwarding: Forwarding, hooked: Hooked) -> Result<Sending, KernelError> {
        let asked = Asked::from(forwarding);
        let judged = hooked.judge(asked);
        self.loaded()?.forward(asked, &judged)?;
        Ok(Sending { hooked, judged })
    }
}
