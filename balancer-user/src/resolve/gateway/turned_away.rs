//! What is said of a place besides the routes that are there: which ask for it in vain, and which
//! references of theirs lead nowhere.

use super::{AnyRoute, Attachments, ConditionReason, Point, carry};
use crate::{
    policy::gateway::{GROUP, ParentRef},
    resolve::{Destination, PolicyRef},
};

impl<'s> Attachments<'s> {
    /// Routes that ask for a place and are not attached there, each with why.
    pub fn turned_away(&self, point: &Point<'_>) -> Vec<(AnyRoute<'s>, String)> {
        let mut turned_away = Vec::new();
        for (index, status) in self.routes.iter().enumerate() {
            for parent in &status.parents {
                let lost = parent.lost.iter().filter(|(lost, _)| lost == point);
                let lost = lost.map(|(_, winner)| self.goes_before(point, *winner, index));
                let refused = parent.refused.iter().filter(|(refused, _)| refused == point);
                let refused = refused.map(|(_, why)| format!("{point} {why}"));
                // Listeners and ports that are not there can mean any.
                let nothing_meant = parent.accepted.reason == ConditionReason::NoMatchingParent
                    && is_asked_for(parent.parent, status.route, point);
                let nothing_meant = nothing_meant.then(|| parent.accepted.message.clone());
                let why = lost.chain(refused).chain(nothing_meant);
                turned_away.extend(why.map(|why| (status.route, why)));
            }
        }
        turned_away
    }

    /// Why a route is refused what it names, of which `destination` is what is left (decision D10);
    /// `None`: it is not refused.
    pub fn why_refused(
        &self,
        points: &[Point<'_>],
        route: &PolicyRef,
        destination: &Destination,
    ) -> Option<&str> {
        let attached = points.iter().flat_map(|point| self.at(point));
        let own = attached.filter(|(status, _)| carry::policy_of(status.route) == *route);
        let mut named =
            own.flat_map(|(status, parent)| status.references.iter().zip(&parent.backends));
        named.find_map(|(reference, backend)| {
            let (_, why) = backend.as_ref().err()?;
            (carry::refused(reference.to) == *destination).then_some(why.as_str())
        })
    }
}

/// Whether a route names the Gateway or Service of a place.
fn is_asked_for(parent: &ParentRef, route: AnyRoute<'_>, point: &Point<'_>) -> bool {
    let named = (&*parent.group, &*parent.kind, &*parent.namespace, &*parent.name);
    match *point {
        Point::Listener { namespace, gateway, .. } => {
            named == (GROUP, "Gateway", namespace, gateway)
        }
        Point::Service { namespace, service, clients, .. } => {
            named == ("", "Service", namespace, service)
                && route.meta().object().0 == clients.unwrap_or(namespace)
        }
    }
}
