//! What a rule does with the requests that it takes, step by step.

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::HOST};

use super::{
    cors::Cors,
    redirect::Redirect,
    rewrite::{Host, HostRewrite, NoHost, PathRewrite},
    split::Destination,
};

/// One step. Filters are carried out in the order in which they are listed, but for host and path,
/// which are computed from the path that was matched, and CORS, which comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes what the backend is sent.
    RequestHeaders(HeaderChanges),
    /// Changes what the client is sent.
    ResponseHeaders(HeaderChanges),
    /// Another path.
    Path(PathRewrite),
    /// Another host.
    Host(HostRewrite),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// A copy goes elsewhere; what comes back is thrown away.
    Mirror(Mirror),
    /// Who else's scripts may ask (Fetch, "CORS protocol").
    Cors(Cors),
    /// Answered by the proxy itself.
    Respond(StatusCode),
}

/// Copies of a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where they go.
    pub destination: Destination,
    /// Of which requests.
    pub share: Share,
    /// The copy's host ends in `-shadow` (semantics 4.5; Envoy).
    pub shadow: bool,
}

/// A part of all requests: `numerator ÷ denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// At most the denominator.
    numerator: u64,
    /// Not 0.
    denominator: u64,
}

impl Share {
    /// All of them.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// `numerator ÷ denominator`; `None`: that is no part of a whole.
    pub fn new(numerator: u64, denominator: u64) -> Option<Self> {
        (denominator > 0 && numerator <= denominator).then_some(Self { numerator, denominator })
    }

    /// Whether the request with this random number is among them. The number is one of all of
    /// `u64`, each as likely.
    pub fn takes(self, number: u64) -> bool {
        // number ÷ 2⁶⁴ < numerator ÷ denominator; neither side can overflow.
        u128::from(number) * u128::from(self.denominator) < u128::from(self.numerator) << 64
    }

    /// As a number from 0 to 1.
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

/// Changes of headers, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges(Vec<HeaderChange>);

/// One change. Case of names does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// All values go; none is fine.
    Remove(HeaderName),
    /// This is the only value.
    Set(HeaderName, HeaderValue),
    /// This comes behind the values that are there.
    Append(HeaderName, HeaderValue),
}

/// A header that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// RFC 9110, 5.6.2: a token.
    #[error("`{0}` is no name of a header: it may hold letters, digits and !#$%&'*+-.^_`|~")]
    Name(String),
    /// RFC 9110, 5.5.
    #[error("the value {value:?} of `{name}` holds a character that no header may")]
    Value {
        /// Of the header.
        name: String,
        /// As written.
        value: String,
    },
    /// A request has exactly one host.
    #[error("header `host`: {0}")]
    Host(NoHost),
}

/// Reads the name of a header.
///
/// # Errors
/// It is no token.
pub fn header_name(name: &str) -> Result<HeaderName, BadHeader> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| BadHeader::Name(name.to_owned()))
}

impl HeaderChanges {
    /// Adds a removal.
    ///
    /// # Errors
    /// The name cannot be sent. So with the others.
    pub fn remove(&mut self, name: &str) -> Result<(), BadHeader> {
        self.0.push(HeaderChange::Remove(header_name(name)?));
        Ok(())
    }

    /// Adds one that replaces.
    ///
    /// # Errors
    /// Name or value cannot be sent.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BadHeader> {
        let (name, value) = pair(name, value)?;
        self.0.push(HeaderChange::Set(name, value));
        Ok(())
    }

    /// Adds one that comes behind.
    ///
    /// # Errors
    /// Name or value cannot be sent.
    pub fn append(&mut self, name: &str, value: &str) -> Result<(), BadHeader> {
        let (name, value) = pair(name, value)?;
        self.0.push(HeaderChange::Append(name, value));
        Ok(())
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderChange> {
        self.0.iter()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pair(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), BadHeader> {
    let read = HeaderValue::from_str(value);
    let read = read.map_err(|_| BadHeader::Value { name: name.into(), value: value.into() })?;
    let name = header_name(name)?;
    if name == HOST {
        Host::new(value).map_err(BadHeader::Host)?;
    }
    Ok((name, read))
}

impl HeaderChange {
    /// Makes the change.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => drop(headers.remove(name)),
            Self::Set(name, value) => drop(headers.insert(name, value.clone())),
            Self::Append(name, value) => drop(headers.append(name, value.clone())),
        }
    }

    /// The name that it changes.
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Remove(name) | Self::Set(name, _) | Self::Append(name, _) => name,
        }
    }

    /// What a change of `Host` amounts to: another host. A request has exactly one, so that it
    /// cannot be removed and none can come behind it.
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Set(name, value) | Self::Append(name, value) if name == HOST => {
                value.to_str().ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::evenly;

    fn applied(before: &[(&str, &str)], changes: &HeaderChanges) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(header_name(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        changes.iter().for_each(|change| change.apply(&mut headers));
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn set_replaces_all_values_and_append_keeps_them() {
        let before = [("x-a", "1"), ("X-A", "2"), ("x-b", "3")];
        let mut set = HeaderChanges::default();
        set.set("X-a", "9").unwrap();
        assert_eq!(applied(&before, &set), owned(&[("x-a", "9"), ("x-b", "3")]));
        let mut append = HeaderChanges::default();
        append.append("X-a", "9").unwrap();
        let after = owned(&[("x-a", "1"), ("x-a", "2"), ("x-a", "9"), ("x-b", "3")]);
        assert_eq!(applied(&before, &append), after);
    }

    #[test]
    fn a_header_that_is_removed_and_added_has_the_added_value_only() {
        let mut changes = HeaderChanges::default();
        changes.remove("x-a").unwrap();
        changes.append("x-a", "9").unwrap();
        changes.remove("x-none").unwrap();
        assert_eq!(applied(&[("x-a", "1"), ("x-a", "2")], &changes), owned(&[("x-a", "9")]));
    }

    #[test]
    fn what_no_header_may_hold_is_refused() {
        let mut changes = HeaderChanges::default();
        for bad in ["", "a b", ":path", "ä", "a\n"] {
            let error = changes.set(bad, "1").unwrap_err().to_string();
            assert!(error.contains("is no name of a header"), "{error}");
        }
        let error = changes.append("x-a", "1\r\nx-b: 2").unwrap_err().to_string();
        assert_eq!(
            error,
            "the value \"1\\r\\nx-b: 2\" of `x-a` holds a character that no header may"
        );
        let error = changes.set("Host", "a b").unwrap_err().to_string();
        assert!(error.starts_with("header `host`: `a b` is no host"), "{error}");
        assert!(changes.is_empty());
    }

    #[test]
    fn a_share_takes_its_part_of_all_numbers() {
        let quarter = Share::new(25, 100).unwrap();
        let of = |share: Share| evenly(1000).filter(|number| share.takes(*number)).count();
        assert_eq!(of(quarter), 250);
        assert_eq!(of(Share::ALL), 1000);
        assert_eq!(of(Share::new(0, 1).unwrap()), 0);
        assert!(Share::ALL.takes(u64::MAX));
        assert_eq!(Share::new(1, 0), None);
        assert_eq!(Share::new(101, 100), None);
        assert!(Share::new(u64::MAX, u64::MAX).unwrap().takes(u64::MAX));
    }
}
