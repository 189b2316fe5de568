//! Listeners of one address and port: which of them a question names, and which a request belongs
//! to.

use super::{
    asked::HttpRoute,
    steps::{Told, listed},
};
use crate::{
    http::Hostname,
    resolve::{Destination, gateway::Attachments},
};

/// The listener that a question names, of those that are dialled as a VIP's destination, with its
/// hosts; `None`: it names none, but an address, or something else.
pub(super) fn named(
    attached: &Attachments<'_>,
    destination: &Destination,
    to: &str,
) -> Option<(Destination, Hostname)> {
    let all = attached.listeners(destination).into_iter();
    all.into_iter().find(|(listener, _)| listener.to_string() == to)
}

impl Told<'_, '_> {
    /// What the host of a request decides where listeners share an address and port.
    pub(super) fn listeners(&self, http: Option<&HttpRoute<'_>>) -> Vec<String> {
        let all = self.resolver.attached.listeners(&self.vip.destination);
        if all.len() < 2 {
            return Vec::new();
        }
        let each = all.iter().map(|(listener, hosts)| format!("{listener} (host {hosts})"));
        let mut steps = vec![format!(
            "destination: listeners of this address and port are {}; a request belongs to the one \
             with the most specific hostname that takes its host",
            listed(each)
        )];
        let described = http.filter(|_| self.query.request.is_some());
        let request = described.and_then(|http| http.request().ok());
        steps.extend(request.map(|request| {
            let host = request.host();
            let taking = all.iter().filter(|(_, hosts)| hosts.takes(host));
            let owner = taking.min_by_key(|(_, hosts)| hosts.precedence());
            match (owner, self.listener) {
                (Some((owner, _)), Some(named)) if owner != named => format!(
                    "destination: the host {host} is that of the listener {owner}, so no rule of \
                     {named} takes the request"
                ),
                (Some((owner, _)), _) => {
                    format!("destination: the host {host} is that of the listener {owner}")
                }
                (None, _) => format!("destination: the host {host} is that of none of them"),
            }
        }));
        steps
    }
}
