//! Hostnames of rules and listeners (semantics 5.1), and which of them goes first (5.3).

use std::{cmp::Reverse, fmt};

/// A hostname that a rule or a listener is for, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hostname {
    /// Every host.
    Any,
    /// This host.
    Exact(Box<str>),
    /// `*.example.com`, kept without the `*.`: every host with more labels before these.
    Below(Box<str>),
}

/// What goes first among hostnames that take the same host. Smaller goes first: the longest
/// without a wildcard, then the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPrecedence {
    exact: Reverse<usize>,
    any: Reverse<usize>,
}

/// A hostname that takes no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no hostname: write a name such as shop.example.com, or *.example.com for all below it"
)]
pub struct NoHostname(String);

impl Hostname {
    /// Reads `shop.example.com` or `*.example.com`; `*` and nothing at all are every host.
    ///
    /// # Errors
    /// A wildcard in another place, an empty label, or characters that no host has.
    pub fn new(text: &str) -> Result<Self, NoHostname> {
        if matches!(text, "" | "*") {
            return Ok(Self::Any);
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let right = name.split('.').all(|label| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.bytes().all(inner)
        });
        if !right {
            return Err(NoHostname(text.to_owned()));
        }
        let name = name.to_ascii_lowercase().into();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }

    /// Whether it takes a host, given without a port. `*.example.com` does not take
    /// `example.com`.
    pub fn takes(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Below(name) => host
                .len()
                .checked_sub(name.len())
                .filter(|start| *start > 1 && host.as_bytes()[start - 1] == b'.')
                // A host may have any bytes; a split inside a character is no hostname's.
                .and_then(|start| host.get(start..))
                .is_some_and(|end| name.eq_ignore_ascii_case(end)),
        }
    }

    /// The hosts that both take, as one hostname; `None`: there are none.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => Some(one.clone()),
            (Self::Exact(name), one) | (one, Self::Exact(name)) => {
                one.takes(name).then(|| Self::Exact(name.clone()))
            }
            (Self::Below(a), Self::Below(b)) => {
                let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
                let inside = **short == **long || Self::Below(short.clone()).takes(long);
                inside.then(|| Self::Below(long.clone()))
            }
        }
    }

    /// What goes first.
    pub fn precedence(&self) -> HostPrecedence {
        let (exact, any) = match self {
            Self::Any => (0, 0),
            Self::Exact(name) => (name.len(), name.len()),
            Self::Below(name) => (0, name.len() + "*.".len()),
        };
        HostPrecedence { exact: Reverse(exact), any: Reverse(any) }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::new(text).unwrap()
    }

    #[test]
    fn a_wildcard_takes_more_labels_and_not_the_name_itself() {
        let below = host("*.example.com");
        for name in ["a.example.com", "a.b.example.com", "A.EXAMPLE.com"] {
            assert!(below.takes(name), "{name}");
        }
        for name in ["example.com", ".example.com", "aexample.com", "a.example.org", "é.com"] {
            assert!(!below.takes(name), "{name}");
        }
        assert!(host("Shop.Example.com").takes("shop.example.com"));
        assert!(!host("example.com").takes("shop.example.com"));
        assert!(host("*").takes("") && host("").takes("10.0.0.1"));
    }

    #[test]
    fn what_is_no_hostname_is_refused() {
        for bad in ["a..b", ".a", "a.*.b", "*a.b", "a b", "a:80", "**", "*."] {
            let error = Hostname::new(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn hostnames_intersect_where_one_takes_the_other() {
        for (a, b, both) in [
            ("*", "a.b", Some("a.b")),
            ("a.b", "a.b", Some("a.b")),
            ("a.b", "c.b", None),
            ("*.b", "a.b", Some("a.b")),
            ("*.b", "b", None),
            ("*.b", "*.a.b", Some("*.a.b")),
            ("*.b", "*.b", Some("*.b")),
            ("*.b", "*.ab", None),
            ("*.a.b", "*.c.b", None),
        ] {
            let both = both.map(str::to_owned);
            let found = |a: &str, b: &str| host(a).intersect(&host(b)).map(|h| h.to_string());
            assert_eq!(found(a, b), both, "{a} {b}");
            assert_eq!(found(b, a), both, "{b} {a}");
        }
    }

    #[test]
    fn names_without_a_wildcard_go_first_then_the_longest() {
        let mut names = ["*", "*.b", "a.b", "*.long.a.b", "c.a.b"].map(host);
        names.sort_by_key(Hostname::precedence);
        let order: Vec<String> = names.iter().map(Hostname::to_string).collect();
        assert_eq!(order, ["c.a.b", "a.b", "*.long.a.b", "*.b", "*"]);
    }
}
