//! Source translation: what stands in its way is said, once.

use std::collections::BTreeSet;

use tracing::{error, warn};

use super::Writer;

impl Writer {
    /// Says what a person should know of source translation and was not told yet.
    pub(super) fn look_at_snat(&mut self) {
        if self.node.datapath_if_open().is_none() {
            return;
        }
        let mut now = BTreeSet::new();
        match self.node.snat() {
            Ok(found) => {
                for finding in found.into_iter().flat_map(|(_, findings)| findings) {
                    if !self.snat_said.contains(&finding.message) {
                        warn!(hint = finding.hint, "{}", finding.message);
                    }
                    now.insert(finding.message);
                }
            }
            Err(error) => {
                let message = error.to_string();
                if !self.snat_said.contains(&message) {
                    error!("cannot look after snat: {message}");
                }
                now.insert(message);
            }
        }
        self.snat_said = now;
    }
}
