//! How long things take and how tries end, as a case has the backend behave: what comes of it for
//! the client is reckoned, nobody waits.

use std::time::Duration;

use balancer_user::http::{Forward, Tried};
use http::StatusCode;
use serde_json::Value;

use crate::resources::text;

/// A backend.
pub(super) struct Behaviour {
    /// It takes so long for each try.
    delay: Duration,
    /// The first tries fail, so many of them.
    failing: u32,
    /// In so much time each,
    failing_delay: Duration,
    /// and with this code; `None`: the connection ends.
    code: Option<StatusCode>,
}

impl Behaviour {
    /// `delay` of the request's parameters, and `retry_simulation` of the case.
    pub(super) fn of(case: &Value, delay: Option<&str>) -> Result<Self, String> {
        // The names stand in quotes of their own there.
        let said = |name: &str| {
            let simulation = case["retry_simulation"].as_object()?;
            let (_, value) = simulation.iter().find(|(key, _)| key.trim_matches('"') == name)?;
            text(value).or_else(|| value.as_u64().map(|number| number.to_string()))
        };
        let code = said("responseCode").map(|code| {
            let number: Result<u16, _> = code.parse();
            let code = number.ok().and_then(|number| StatusCode::from_u16(number).ok());
            code.ok_or("responseCode is no code")
        });
        let failing = said("succeedAfter").map_or(Ok(0), |number| number.parse());
        Ok(Self {
            delay: delay.map_or(Ok(Duration::ZERO), duration)?,
            failing: failing.map_err(|_| "succeedAfter is no number")?,
            failing_delay: said("delayRetry").as_deref().map_or(Ok(Duration::ZERO), duration)?,
            code: code.transpose()?,
        })
    }

    /// The code that the client gets.
    pub(super) fn answers(&self, forward: &Forward<'_>) -> StatusCode {
        let mut elapsed = Duration::ZERO;
        for tries in 1.. {
            let fails = tries <= self.failing;
            let takes = if fails { self.failing_delay } else { self.delay };
            let (spent, ended) = match forward.timeouts.backend_request {
                Some(limit) if takes > limit => (limit, Tried::TimedOut),
                _ if !fails => (takes, Tried::Answered(StatusCode::OK)),
                _ => (takes, self.code.map_or(Tried::NoAnswer, Tried::Answered)),
            };
            elapsed += spent;
            if forward.timeouts.request.is_some_and(|limit| elapsed >= limit) {
                break;
            }
            match (forward.retry.filter(|retry| retry.again(tries, ended)), ended) {
                (Some(retry), _) => elapsed += retry.backoff.unwrap_or_default(),
                (None, Tried::Answered(code)) => return code,
                (None, Tried::NoAnswer) => return StatusCode::SERVICE_UNAVAILABLE,
                (None, Tried::TimedOut) => break,
            }
        }
        StatusCode::GATEWAY_TIMEOUT
    }
}

/// `1s`, `300ms`.
fn duration(written: &str) -> Result<Duration, String> {
    let bad = || format!("{written} is no delay");
    let (digits, unit) = match written.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (written.strip_suffix('s').ok_or_else(bad)?, 1000),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    Ok(Duration::from_millis(number * unit))
}
