//! Which routes stay where routes of different kinds meet (semantics 5.1, 5.7).

use crate::http::Hostname;

use super::{Attachments, Condition, ConditionReason, Point, by_age_rule, listeners::hostname};

impl<'s> Attachments<'s> {
    /// Takes routes off every point at which one of another kind goes before them.
    pub(super) fn settle(&mut self) {
        let mut losses = Vec::new();
        for (point, at) in &self.points {
            match point {
                Point::Service { .. } => self.by_kind(point, at, &mut losses),
                Point::Listener { .. } => self.by_hostname(point, at, &mut losses),
            }
        }
        for (point, loser, winner) in losses {
            if let Some(at) = self.points.get_mut(&point) {
                at.retain(|route| *route != loser);
            }
            let message = self.goes_before(&point, winner, loser);
            for parent in &mut self.routes[loser].parents {
                let before = parent.points.len();
                parent.points.retain(|own| *own != point);
                if parent.points.len() == before {
                    continue;
                }
                parent.lost.push((point, winner));
                if parent.points.is_empty() {
                    parent.accepted = Condition {
                        holds: false,
                        reason: ConditionReason::Conflicted,
                        message: message.clone(),
                    };
                }
            }
        }
    }

    /// At a port of a Service one kind alone is accepted.
    fn by_kind(
        &self,
        point: &Point<'s>,
        at: &[usize],
        losses: &mut Vec<(Point<'s>, usize, usize)>,
    ) {
        let kind = |route: &usize| self.routes[*route].route.kind();
        // Of equals the first is the oldest.
        let Some(winner) = at.iter().min_by_key(|route| kind(route)) else { return };
        let others = at.iter().filter(|route| kind(route) != kind(winner));
        losses.extend(others.map(|loser| (*point, *loser, *winner)));
    }

    /// At a listener a route is refused if an older one of the other kind is for one of its hosts.
    fn by_hostname(
        &self,
        point: &Point<'s>,
        at: &[usize],
        losses: &mut Vec<(Point<'s>, usize, usize)>,
    ) {
        let kind = |route: &usize| self.routes[*route].route.kind();
        let Some(listener) = self.listener(point) else { return };
        if at.iter().all(|route| kind(route) == kind(&at[0])) {
            return;
        }
        let listener = hostname(listener);
        let mut accepted: Vec<(usize, Vec<Hostname>)> = Vec::new();
        for index in at {
            let route = self.routes[*index].route;
            let hosts = route.hosts_at(&listener);
            let rival = accepted.iter().find(|(other, taken)| {
                self.routes[*other].route.kind() != route.kind()
                    && taken.iter().any(|a| hosts.iter().any(|b| a.intersect(b).is_some()))
            });
            match rival {
                Some((winner, _)) => losses.push((*point, *index, *winner)),
                None => accepted.push((*index, hosts)),
            }
        }
    }

    /// Why a route is taken off a point.
    pub(super) fn goes_before(&self, point: &Point<'_>, winner: usize, loser: usize) -> String {
        let (winner, loser) = (self.routes[winner].route, self.routes[loser].route);
        let called = winner.called();
        match point {
            Point::Service { .. } => {
                format!("the {called} is attached to {point}, and its kind goes first")
            }
            Point::Listener { .. } => format!(
                "the {called} is attached to {point} for some of its hosts and goes first: {}",
                by_age_rule(winner, loser)
            ),
        }
    }
}
