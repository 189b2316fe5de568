//! What is said of a request is what becomes of it, whatever is drawn.

use proptest::prelude::*;

use super::{
    Answer, Decision, Query, RequestQuery,
    http_tests::{NAMES, ask_rules},
};
use crate::{
    http::{
        self, Backend, BackendId, Chance, Choice, Destination, Nowhere, Readiness, Router, Rules,
        Split,
        tests::{
            Asked,
            properties::{any_request, any_rules},
        },
    },
    resolve::BackendState,
};

/// As the backends of `ask_rules` are.
fn readiness(id: BackendId) -> Readiness {
    match id.0 {
        0 | 1 => Readiness::Ready,
        2 => Readiness::Invalid,
        _ => Readiness::Empty,
    }
}

fn any_split() -> impl Strategy<Value = Split> {
    let backend = (0..5u32, 0..4u32).prop_map(|(id, weight)| {
        let destination = match id {
            4 => Destination::Invalid,
            id => Destination::Backend(BackendId(id)),
        };
        Backend::new(destination, weight)
    });
    prop::collection::vec(backend, 0..4).prop_map(Split::new)
}

prop_compose! {
    /// The rules of the model's own tests, with backends of every state.
    fn rules()(rules in any_rules(), splits in prop::collection::vec(any_split(), 13)) -> Rules {
        let mut rules = rules;
        for (rule, split) in rules.rules.iter_mut().chain(&mut rules.otherwise).zip(splits) {
            rule.split = split;
        }
        rules
    }
}

fn explained(rules: &Rules, asked: &Asked, all: bool) -> Answer {
    let (method, path, headers) = asked.said();
    let request = RequestQuery { method: Some(method), path: Some(path), host: None, headers };
    let query = Query {
        from: "web".into(),
        to: "backend".into(),
        request: Some(request),
        all,
        protocol: None,
    };
    ask_rules(rules.clone(), &query).unwrap()
}

/// The state that an answer gives what a decision has come to.
fn came_to(decision: &http::Decision<'_>) -> (BackendState, Option<BackendId>) {
    match decision {
        http::Decision::Forward(to) => (BackendState::Ok, Some(to.backend)),
        http::Decision::Refuse(Nowhere::Invalid, _) => (BackendState::Invalid, None),
        http::Decision::Refuse(Nowhere::Empty, _) => (BackendState::Empty, None),
        other => panic!("these rules come to no {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_what_is_decided_for_every_chance(
        rules in rules(),
        asked in any_request(),
        numbers in prop::collection::vec(any::<u64>(), 8),
    ) {
        let answer = explained(&rules, &asked, false);
        let router = Router::new(rules).unwrap();
        let request = asked.request();
        let decide = |backend| router.decide(&request, Chance { backend, cookie: 0 }, readiness);

        let found = router.find(&request);
        let place = found.and_then(|found| found.place);
        prop_assert_eq!(answer.rule.as_ref().map(|rule| rule.index), place.map(|place| place.rule));
        prop_assert_eq!(
            answer.rule.as_ref().and_then(|rule| rule.matches.as_ref()),
            place.and(found).map(|found| found.matched)
        );
        let status = answer.response.as_ref().and_then(|response| response.status);
        let takers: Vec<_> = answer.backends.iter().filter(|backend| backend.weight > 0).collect();
        if takers.is_empty() {
            for number in numbers {
                let http::Decision::Refuse(why, answered) = decide(Choice::Number(number)) else {
                    panic!("nobody takes it");
                };
                prop_assert_eq!(answer.decision, Decision::Reject);
                prop_assert_eq!(status, Some(answered.answer.status.as_u16()));
                prop_assert_eq!(why == Nowhere::NoRule, found.is_none());
            }
            return Ok(());
        }
        let split = &found.unwrap().rule.split;
        // Each share is met, in its state.
        for (at, backend) in answer.backends.iter().enumerate() {
            let Some(choice) = split.choice(at) else {
                prop_assert_eq!((backend.state, backend.share), (BackendState::Drained, 0.0));
                continue;
            };
            let (state, id) = came_to(&decide(choice));
            prop_assert_eq!(state, backend.state);
            if let Some(BackendId(id)) = id {
                let version = backend.tags.get("version").map_or("", String::as_str);
                prop_assert_eq!((backend.service.as_str(), version), NAMES[id as usize]);
            }
        }
        // And nothing else happens.
        for number in numbers {
            let (state, _) = came_to(&decide(Choice::Number(number)));
            prop_assert!(takers.iter().any(|backend| backend.state == state));
        }
        let sum: f64 = takers.iter().map(|backend| backend.share).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        let forwards = takers.iter().any(|backend| backend.state == BackendState::Ok);
        prop_assert_eq!(answer.decision == Decision::Forward, forwards);
        prop_assert_eq!(answer.request.is_some(), forwards);
        prop_assert_eq!(status.is_some(), !forwards);
        let seen = answer.request.as_ref().map(|seen| (seen.path.clone(), seen.host.clone()));
        let came = (request.path_and_query().into_owned(), request.authority.to_owned());
        prop_assert_eq!(seen, forwards.then_some(came));
    }

    #[test]
    fn all_lists_what_takes_the_request_before_anything_else_that_takes_it(
        rules in rules(),
        asked in any_request(),
    ) {
        let answer = explained(&rules, &asked, true);
        let router = Router::new(rules).unwrap();
        let routes = answer.routes.as_ref().unwrap();
        let rest = usize::from(router.rules().otherwise.is_some());
        prop_assert_eq!(routes.len(), router.listed().count() + rest);
        let request = asked.request();
        let first = routes.iter().find(|route| {
            let rule = route.rule.as_ref().unwrap();
            let takes = |name: &String| http::Hostname::new(name).unwrap().takes(request.host());
            takes(&rule.hostname)
                && !rule.except.iter().any(takes)
                && route.matches.as_ref().is_none_or(|matched| matched.takes(&request))
        });
        prop_assert_eq!(first.is_some(), router.find(&request).is_some());
        if let Some(first) = first {
            // It is shown with the request that was described.
            prop_assert_eq!(&first.backends, &answer.backends);
            prop_assert_eq!(&first.request, &answer.request);
            prop_assert_eq!(&first.response, &answer.response);
            prop_assert_eq!(first.rule.as_ref().unwrap().decision, Some(answer.decision));
        }
    }
}
