//! Whether the goals are met: bounds on what a contender costs beside no balancer, no growth with
//! services, and less than any peer.

use std::fmt;

use crate::{contenders::Contender, measure::Measure, ours::Way, work::Work, world::Place};

/// A measure and the largest ratio to no balancer that it may have.
const BOUNDS: [(&str, f64); 4] = [
    ("router.short.tc_stack", 1.03),
    ("router.short.tc_direct", 1.00),
    ("router.bulk.tc_stack", 1.02),
    ("router.bulk.tc_direct", 1.02),
];
/// A ratio that is larger by more than this with services than without has grown.
const GROWTH: f64 = 0.03;

/// A goal, what was found, and whether that meets it; neither where it was not measured.
pub(crate) struct Goal {
    what: String,
    found: Option<(String, bool)>,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            None => write!(f, "{}: not measured", self.what),
            Some((found, met)) => {
                write!(f, "{}: {found}: {}", self.what, if *met { "met" } else { "not met" })
            }
        }
    }
}

/// All goals. `services` are the numbers of further services that were measured with.
pub(crate) fn all(measures: &[Measure], services: &[u32]) -> Vec<Goal> {
    let ratio = |name: &str| measures.iter().find(|m| m.name == name)?.ratio;
    let mut goals = Vec::new();
    for (name, bound) in BOUNDS {
        let found = ratio(name).map(|ratio| (format!("{ratio:.3}"), ratio <= bound));
        goals.push(Goal { what: format!("{name} ≤ {bound:.2} × none"), found });
    }
    for way in [Way::Stack, Way::Direct] {
        let ours = Contender::Ours(way).name();
        let alone = format!("{}.{}.{ours}", Place::Router.name(), Work::Short.name());
        for others in services {
            let found = ratio(&alone).zip(ratio(&format!("{alone}.{others}")));
            goals.push(Goal {
                what: format!("{alone} does not grow with {others} services"),
                found: found.map(|(without, with)| {
                    (format!("{without:.3} and {with:.3}"), with <= without + GROWTH)
                }),
            });
        }
        for (place, work) in Place::ALL.into_iter().flat_map(|p| Work::ALL.map(|w| (p, w))) {
            let name = |contender: Contender| {
                format!("{}.{}.{}", place.name(), work.name(), contender.name())
            };
            let peers = Contender::ALL.into_iter().filter(|contender| !contender.is_ours());
            let best = peers
                .filter_map(|peer| Some((ratio(&name(peer))?, peer.name())))
                .min_by(|(a, _), (b, _)| a.total_cmp(b));
            let own = name(Contender::Ours(way));
            goals.push(Goal {
                found: ratio(&own).zip(best).map(|(ours, (best, peer))| {
                    (format!("{ours:.3}, the next is {peer} with {best:.3}"), ours < best)
                }),
                what: format!("{own} costs less than with any peer"),
            });
        }
    }
    goals
}
