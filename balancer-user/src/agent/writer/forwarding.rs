//! How packets are sent on: judged anew, and said where it changes.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::Writer;
use crate::{
    kernel::{Judged, Obstacle},
    settings::Forwarding,
};

/// How long a judgement holds that is not made again. Several times as long as the pause between
/// two, so that an agent that is busy, or replaced by another, changes nothing.
const LEASE: Duration = Duration::from_secs(10);

impl Writer {
    /// Judges how packets are sent on. `interfaces`: they may have changed too, or what others have
    /// on them.
    pub(super) fn send_on(&mut self, interfaces: bool) {
        if self.node.datapath_if_open().is_none() {
            return;
        }
        let forwarding = self.settings.forwarding;
        // What is forced no rule would end, so nobody has to look.
        let lease = (forwarding == Forwarding::Auto).then_some(LEASE);
        let before = self.sending.take();
        let said = before.as_ref().map(|sending| sending.judged.clone()).unwrap_or_default();
        let judged = match before {
            Some(before) if !interfaces => self.node.send_on_as_before(forwarding, before, lease),
            _ => self.node.send_on(forwarding, lease),
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
