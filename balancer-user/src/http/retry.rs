//! When a request that a backend did not take is sent again (GEP-1731).

use std::time::Duration;

use ::http::StatusCode;

/// Tries after the first where a rule does not say how many.
const ATTEMPTS: u32 = 1;

/// What a rule says of tries that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Codes of answers after which there is another.
    pub codes: Vec<StatusCode>,
    /// How long to wait before one at least.
    pub backoff: Option<Duration>,
}

/// How a try at a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// With an answer.
    Answered(StatusCode),
    /// There was no connection, or it ended before the answer began.
    NoAnswer,
    /// It took longer than one try may.
    TimedOut,
}

impl Retry {
    /// Tries again after any of these codes, and where there was no answer at all.
    pub fn new(attempts: Option<u32>, codes: Vec<StatusCode>, backoff: Option<Duration>) -> Self {
        Self { attempts: attempts.unwrap_or(ATTEMPTS), codes, backoff }
    }

    /// Whether there is another try after `tries` of them, of which the last ended so. Whether a
    /// request can be sent twice at all is for whoever has it to say: its body may be gone.
    pub fn again(&self, tries: u32, ended: Tried) -> bool {
        tries <= self.attempts
            && match ended {
                Tried::Answered(code) => self.codes.contains(&code),
                Tried::NoAnswer | Tried::TimedOut => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_tries_as_the_rule_gives_and_one_more() {
        let retry = Retry::new(Some(2), vec![StatusCode::BAD_GATEWAY], None);
        let after = |tries| retry.again(tries, Tried::Answered(StatusCode::BAD_GATEWAY));
        assert_eq!([1, 2, 3].map(after), [true, true, false]);
        assert!(!Retry::new(Some(0), Vec::new(), None).again(1, Tried::NoAnswer));
        let once = Retry::new(None, Vec::new(), None);
        assert_eq!([1, 2].map(|tries| once.again(tries, Tried::TimedOut)), [true, false]);
    }

    #[test]
    fn an_answer_is_final_unless_its_code_is_named() {
        let retry = Retry::new(Some(3), vec![StatusCode::INTERNAL_SERVER_ERROR], None);
        assert!(retry.again(1, Tried::Answered(StatusCode::INTERNAL_SERVER_ERROR)));
        assert!(!retry.again(1, Tried::Answered(StatusCode::SERVICE_UNAVAILABLE)));
        assert!(!retry.again(1, Tried::Answered(StatusCode::OK)));
        assert!(retry.again(1, Tried::NoAnswer) && retry.again(1, Tried::TimedOut));
    }
}
