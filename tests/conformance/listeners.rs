//! Whether a resolved route does what a case says of a listener: the same with every request near
//! the borders of both sides' matches, in the same order of matches.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    asked::{self, Asks},
    cases::Verdict,
    found::{Found, Sent},
    resources::{array, text},
    said::Said,
};

/// What else than the peer's answer is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave {
    /// What follows a replaced prefix may keep its slash: the case says that this is disputed.
    slash: bool,
    /// Versions before 3 leave invalid backends out where we answer their share with 500.
    left_out: bool,
}

impl Leave {
    /// What a case leaves open.
    pub(crate) fn of(case: &Value) -> Self {
        let disputed =
            |note: &Value| text(note).is_some_and(|note| note.starts_with("disputed: prefix"));
        let of_version_2 = |id: String| id.contains("@v2.");
        Self {
            slash: array(&case["notes"]).iter().any(disputed),
            left_out: text(&case["id"]).is_some_and(of_version_2),
        }
    }
}

/// Compares both sides of one listener.
pub(crate) fn compare(
    listener: &str,
    said: &Said,
    found: &Found<'_>,
    leave: Leave,
) -> Result<Verdict, String> {
    let said_asks: Vec<Asks> = said.asks().cloned().collect();
    let found_asks = found.asks()?;
    let (expected, order) = (asked::order(&said_asks), asked::order(&found_asks));
    if expected != order {
        let shown = |order: Vec<String>| format!("{listener}, in this order: {}", order.join("; "));
        return Ok(Verdict::Failed { expected: shown(expected), found: shown(order) });
    }
    let [of_requests, of_answers] = said.touched();
    let [more, more_of_answers] = found.touched();
    let touched: BTreeSet<String> = of_requests.union(&more).cloned().collect();
    let answers: BTreeSet<String> = of_answers.union(&more_of_answers).cloned().collect();
    let mut without_invalid = false;
    let both: Vec<Asks> = said_asks.into_iter().chain(found_asks).collect();
    for asked in asked::requests(&both, &touched)? {
        if Sent::new(&asked).is_err() {
            // A neighbour of a path or a method that cannot stand in a request line.
            continue;
        }
        let expected = said.outcome(&asked, &answers, false);
        let outcome = found.outcome(&asked, &answers)?;
        if outcome.equals(&expected) {
            continue;
        }
        if leave.slash && outcome.equals(&said.outcome(&asked, &answers, true)) {
            continue;
        }
        if leave.left_out && outcome.without(500).is_some_and(|rest| rest.equals(&expected)) {
            without_invalid = true;
            continue;
        }
        let request =
            format!("{listener}, {} {} {:?}", asked.method, asked.target(), asked.headers);
        return Ok(Verdict::Failed {
            expected: format!("{request}: {expected}"),
            found: format!("{request}: {outcome}"),
        });
    }
    Ok(if without_invalid {
        Verdict::Decided("D10, the share of an invalid backend is answered with 500")
    } else {
        Verdict::Passed
    })
}
