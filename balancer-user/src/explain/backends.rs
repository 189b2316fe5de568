//! The sentences about backends: how much each gets, and what keeps it from taking its share.

use super::{
    asked::HttpRoute,
    shares::Shares,
    steps::{Told, counted, listed},
};
use crate::{
    http::{self, Found, Language, Nowhere},
    policy::Tags,
    resolve::{
        Backend, BackendState, Destination, PolicyRef,
        inventory::{Family, Zones},
        tags_text,
    },
};

impl Told<'_, '_> {
    /// A backend of connections.
    pub(super) fn backend(&self, backend: &Backend, index: usize, shares: &Shares) -> String {
        let name = with_tags(&backend.destination, &backend.tags);
        let sum: u64 = self.route.backends.iter().map(|b| u64::from(b.weight)).sum();
        let part = match &shares.slots {
            Some((all, of_backend)) => format!("{} of {all} slots", of_backend[index]),
            None => percent(shares.backends[index].share),
        };
        let head = format!("backend {name}: weight {} of {sum}", backend.weight);
        match backend.state {
            BackendState::Drained => {
                format!("{head}, so it takes no new connections; {}", reals_text(backend))
            }
            BackendState::Ok => {
                format!("{head}, {part}; {}{}", reals_text(backend), self.other_family(backend))
            }
            BackendState::Empty => {
                format!("{head}, {part}; {}, so this share is reset", self.none_ready(backend))
            }
            BackendState::Invalid => {
                let why = self.invalid(backend, self.route.policy.as_ref(), false);
                format!("{head}, {part}; {why}, so this share is reset")
            }
        }
    }

    /// The backends of an HTTP rule.
    pub(super) fn http_backends(
        &self,
        http: &HttpRoute<'_>,
        found: Found<'_>,
        shown: Option<usize>,
    ) -> Vec<String> {
        let rule = found.rule;
        let answers = http.backends(rule);
        let language = http.language();
        let several = answers.iter().filter(|answer| answer.weight > 0).count() > 1;
        let mut steps = Vec::new();
        for (at, (backend, answer)) in rule.split.backends().iter().zip(&answers).enumerate() {
            let known = http.known(backend.destination);
            let name = http.name(backend.destination);
            let of = format!("weight {} of {}", answer.weight, rule.split.sum());
            let head = format!("backend {name}: {of}");
            let part = percent(answer.share);
            let answered =
                |why: Nowhere| format!("this share is answered with {}", code(why, language));
            let mut step = match (answer.state, known) {
                (BackendState::Drained, _) => format!("{head}, so it takes no requests"),
                (BackendState::Ok, Some(known)) => {
                    format!("{head}, {part}; {}{}", reals_text(known), self.other_family(known))
                }
                (BackendState::Empty, Some(known)) => {
                    format!(
                        "{head}, {part}; {}, so {}",
                        self.none_ready(known),
                        answered(Nowhere::Empty)
                    )
                }
                (_, Some(known)) => {
                    let why = self.invalid(known, http.policy(found), http.rules.only_http);
                    format!("{head}, {part}; {why}, so {}", answered(Nowhere::Invalid))
                }
                (_, None) => format!(
                    "{head}, {part}; what it refers to is not there or must not be used, so {}",
                    answered(Nowhere::Invalid)
                ),
            };
            if backend.own_host {
                step += "; it expects its own name as host unless the rule sets one";
            }
            for filter in &backend.filters {
                step += &format!("; of its own: {}", filter.words(|to| http.name(to)));
            }
            if several && shown == Some(at) && answer.state == BackendState::Ok {
                step += "; the request is shown as it sees it, since its share is the largest";
            }
            steps.push(step);
        }
        steps
    }

    /// Why there is nothing that a backend of a policy could be. One of HTTP rules may have to speak
    /// HTTP.
    fn invalid(&self, backend: &Backend, policy: Option<&PolicyRef>, only_http: bool) -> String {
        if let Some(why) = self.why_refused(policy, &backend.destination) {
            return why.to_owned();
        }
        let mesh = self.vip.destination.mesh();
        let known = self.resolver.inventory.endpoints(&backend.destination);
        match &backend.destination {
            Destination::Missing { .. } => format!("mesh {mesh} has no such object or port"),
            Destination::Service { .. } => "there is no such Service or port".to_owned(),
            _ if known.is_some_and(|known| known.refused(&backend.tags)) => {
                "its endpoints expect TLS, which is not spoken here (allow_plain is false)"
                    .to_owned()
            }
            _ if only_http && known.is_some_and(|known| !known.protocol().is_http_like()) => {
                "it does not speak HTTP".to_owned()
            }
            _ => format!("no Dataplane of mesh {mesh} offers the service"),
        }
    }

    fn none_ready(&self, backend: &Backend) -> String {
        format!(
            "no ready {} endpoint{}{}",
            Family::of(self.vip.key.addr.ip()),
            if backend.tags.is_empty() { "" } else { " has these tags" },
            self.other_family(backend)
        )
    }

    /// Endpoints that stay out because a VIP carries reals of its own family only.
    fn other_family(&self, backend: &Backend) -> String {
        let other = match Family::of(self.vip.key.addr.ip()) {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let inventory = &self.resolver.inventory;
        let there =
            inventory.subset(&backend.destination, &backend.tags, other, Zones::Alike).len();
        match there {
            0 => String::new(),
            more => format!(" ({more} of {other} left out: a VIP carries its own family)"),
        }
    }

    /// Endpoints that stay out while there are nearer ones.
    pub(super) fn locality(&self, backends: &[Backend]) -> Vec<String> {
        let family = Family::of(self.vip.key.addr.ip());
        let place = self.resolver.place(self.vip.destination.mesh(), family);
        let mut steps = Vec::new();
        for backend in backends.iter().filter(|b| !b.reals.is_empty()) {
            let inventory = &self.resolver.inventory;
            let Zones::Own(zone) = place.zones_for(&backend.destination) else { continue };
            let subset =
                |zones| inventory.subset(&backend.destination, &backend.tags, family, zones).len();
            let (everywhere, near) = (subset(Zones::Alike), subset(Zones::Own(zone)));
            let out = everywhere.saturating_sub(near);
            if out > 0 {
                steps.push(format!(
                    "locality: {} of {} in other zones left out while zone {zone} has one",
                    counted(out, "endpoint", "endpoints"),
                    with_tags(&backend.destination, &backend.tags)
                ));
            }
        }
        steps
    }
}

impl HttpRoute<'_> {
    /// What a reference of a rule leads to, with the tags that are asked for.
    pub(super) fn name(&self, destination: http::Destination) -> String {
        match self.known(destination) {
            Some(known) => with_tags(&known.destination, &known.tags),
            None => "nothing".to_owned(),
        }
    }
}

/// `503`, or what stands for it in gRPC.
pub(super) fn code(why: Nowhere, language: Language) -> String {
    let answer = why.answer(language);
    match answer.headers.get("grpc-status").and_then(|code| code.to_str().ok()) {
        Some(code) => format!("status {code} of gRPC"),
        None => answer.status.as_u16().to_string(),
    }
}

fn with_tags(destination: &Destination, tags: &Tags) -> String {
    if tags.is_empty() {
        destination.to_string()
    } else {
        format!("{destination} {}", tags_text(tags))
    }
}

fn reals_text(backend: &Backend) -> String {
    match backend.reals.len() {
        0 => "no real".to_owned(),
        some => format!(
            "{}: {}",
            counted(some, "real", "reals"),
            listed(backend.reals.iter().map(ToString::to_string))
        ),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
