//! Whether a resolved route does what a case says of a listener: the same with every request near
//! the borders of both sides' matches, in the same order of matches.

use std::collections::BTreeSet;

use balancer_user::resolve::{Route, inventory::Inventory};
use serde_json::Value;

use crate::{
    asked::{self, Asks},
    cases::Verdict,
    found::{Found, Sent},
    left_out,
    resources::{array, text},
    said::Said,
};

/// What a case leaves open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave {
    /// What follows a replaced prefix may keep its slash: the case says that this is disputed.
    slash: bool,
    /// It is of a version before 3.
    version_2: bool,
}

impl Leave {
    /// What a case leaves open.
    pub(crate) fn of(case: &Value) -> Self {
        let disputed =
            |note: &Value| text(note).is_some_and(|note| note.starts_with("disputed: prefix"));
        let of_version_2 = |id: String| id.contains("@v2.");
        Self {
            slash: array(&case["notes"]).iter().any(disputed),
            version_2: text(&case["id"]).is_some_and(of_version_2),
        }
    }
}

/// Compares both sides of one listener. Where they differ just as a decision says that we differ
/// from the peer, that decision is named.
pub(crate) fn compare(
    listener: &str,
    said: &Said,
    route: &Route,
    inventory: &Inventory<'_>,
    leave: Leave,
) -> Result<Verdict, String> {
    let agrees = |route: &Route, own_hosts| {
        let found = Found::new(route, inventory, own_hosts)?;
        difference(listener, said, &found, leave.slash)
    };
    let Some((expected, found)) = agrees(route, false)? else { return Ok(Verdict::Passed) };
    if route.http.is_none() && agrees(route, true)?.is_none() {
        return Ok(Verdict::Decided(
            "D16, without HTTP rules a destination stays at L4 and its requests keep their Host",
        ));
    }
    for other in left_out::variants(route, inventory, leave.version_2) {
        if agrees(&other, false)?.is_none() {
            return Ok(Verdict::Decided(
                "D10, a backend that is none takes its share and fails, where the peer leaves it out",
            ));
        }
    }
    Ok(Verdict::Failed { expected, found })
}

/// What a case says and what was found, where they differ.
fn difference(
    listener: &str,
    said: &Said,
    found: &Found<'_>,
    slash: bool,
) -> Result<Option<(String, String)>, String> {
    let said_asks: Vec<Asks> = said.asks().cloned().collect();
    let found_asks = found.asks()?;
    let (expected, order) = (asked::order(&said_asks), asked::order(&found_asks));
    if expected != order {
        let shown = |order: Vec<String>| format!("{listener}, in this order: {}", order.join("; "));
        return Ok(Some((shown(expected), shown(order))));
    }
    let [of_requests, of_answers] = said.touched();
    let [more, more_of_answers] = found.touched();
    let touched: BTreeSet<String> = of_requests.union(&more).cloned().collect();
    let answers: BTreeSet<String> = of_answers.union(&more_of_answers).cloned().collect();
    let both: Vec<Asks> = said_asks.into_iter().chain(found_asks).collect();
    for asked in asked::requests(&both, &touched)? {
        if Sent::new(&asked).is_err() {
            // A neighbour of a path or a method that cannot stand in a request line.
            continue;
        }
        let expected = said.outcome(&asked, &answers, false);
        let outcome = found.outcome(&asked, &answers)?;
        let joined = || said.outcome(&asked, &answers, true);
        if outcome.equals(&expected) || (slash && outcome.equals(&joined())) {
            continue;
        }
        let request =
            format!("{listener}, {} {} {:?}", asked.method, asked.target(), asked.headers);
        return Ok(Some((format!("{request}: {expected}"), format!("{request}: {outcome}"))));
    }
    Ok(None)
}
