//! How packets are sent on: judged anew, and said where it changes.

use tracing::{debug, error, info, warn};

use super::Writer;
use crate::{
    kernel::{Judged, Obstacle},
    settings::Forwarding,
};

impl Writer {
    /// Judges how packets are sent on. `interfaces`: they may have changed too, or what others have
    /// on them.
    pub(super) fn send_on(&mut self, interfaces: bool) {
        if self.node.datapath_if_open().is_none() {
            return;
        }
        let forwarding = self.settings.forwarding;
        let before = self.sending.take();
        let said = before.as_ref().map(|sending| sending.judged.clone()).unwrap_or_default();
        let judged = match before {
            Some(before) if !interfaces => self.node.send_on_as_before(forwarding, before),
            _ => self.node.send_on(forwarding),
        };
        match judged {
            Ok(sending) => {
                sending.judged.iter().filter(|one| !said.contains(one)).for_each(say);
                self.sending = Some(sending);
                self.unjudged = None;
            }
            Err(error) => {
                let message = error.to_string();
                if self.unjudged.as_ref() != Some(&message) {
                    error!("cannot judge whether packets may go past the stack: {message}");
                }
                self.unjudged = Some(message);
            }
        }
    }

    /// The last act of an agent. Nobody will see a rule that comes when it is gone.
    pub(in super::super) fn leave(&mut self) {
        let direct = self.sending.as_ref().is_some_and(|s| s.judged.iter().any(|one| one.direct));
        if direct && self.settings.forwarding == Forwarding::Auto {
            match self.node.stop_sending_past_the_stack() {
                Ok(()) => info!("the stack routes until an agent looks after rules again"),
                Err(error) => error!(%error, "packets go on past the stack, and nobody looks"),
            }
        }
        self.shown.keep(&self.node, true);
    }
}

fn say(judged: &Judged) {
    let Judged { interface, direct, peer, obstacles, .. } = judged;
    let why = list(obstacles);
    match (direct, obstacles.as_slice()) {
        (true, []) => info!(interface, peer, "packets go past the stack"),
        (true, _) => warn!(interface, peer, "packets go past the stack, and past this: {why}"),
        (false, [Obstacle::Asked]) => debug!(interface, "packets go through the stack: {why}"),
        (false, _) => info!(interface, "packets go through the stack: {why}"),
    }
}

fn list(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(Obstacle::to_string).collect::<Vec<_>>().join("; ")
}
