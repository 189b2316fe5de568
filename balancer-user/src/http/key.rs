//! What requests are kept together by: hash policies (semantics 4.9).

use std::{net::IpAddr, time::Duration};

use ::http::{HeaderName, HeaderValue};
use xxhash_rust::xxh64::xxh64;

use super::request::Request;

/// One thing to hash, in the order of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    /// What.
    pub of: KeyOf,
    /// Later ones are not asked once there is a hash.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// All values of a header.
    Header(HeaderName),
    /// A cookie.
    Cookie(Cookie),
    /// The address of the client.
    Source,
    /// The first value of a query parameter.
    Query(String),
}

/// A cookie that keeps a client with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    ttl: Option<Duration>,
    path: Option<String>,
}

/// Text that cannot stand in `Set-Cookie`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCookie {
    /// RFC 6265, 4.1.1: a token.
    #[error("`{0}` is no name of a cookie: it may hold letters, digits and !#$%&'*+-.^_`|~")]
    Name(String),
    /// RFC 6265, 4.1.1.
    #[error("`{0}` is no path of a cookie: it may hold visible ASCII but ;")]
    Path(String),
}

/// What a request is hashed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// `None`: no policy found anything, and the choice of an endpoint is free.
    pub hash: Option<u64>,
    /// `Set-Cookie`, one for each cookie that the client has not yet.
    pub set_cookies: Vec<HeaderValue>,
}

impl Cookie {
    /// A cookie. With a time to live, one is made for clients that have none; a time of 0 is the
    /// client's session.
    ///
    /// # Errors
    /// Its name or path cannot be sent.
    pub fn new(name: &str, ttl: Option<Duration>, path: Option<&str>) -> Result<Self, BadCookie> {
        // The name of a header is a token too, but for upper case.
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(BadCookie::Name(name.to_owned()));
        }
        let right = |b: u8| b != b';' && (b == b' ' || b.is_ascii_graphic());
        if let Some(path) = path.filter(|path| !path.bytes().all(right)) {
            return Err(BadCookie::Path(path.to_owned()));
        }
        Ok(Self { name: name.to_owned(), ttl, path: path.map(str::to_owned) })
    }

    /// As part of a sentence.
    pub(super) fn words(&self) -> String {
        let path = self.path.as_ref().map_or(String::new(), |path| format!(", path {path}"));
        match self.ttl {
            None => format!("cookie {}", self.name),
            Some(ttl) if ttl.is_zero() => {
                format!("cookie {} (made where there is none, for the session{path})", self.name)
            }
            Some(ttl) => {
                format!("cookie {} (made where there is none, for {ttl:?}{path})", self.name)
            }
        }
    }

    fn header(&self, value: &str, ttl: Duration) -> Option<HeaderValue> {
        let mut text = format!("{}={value}", self.name);
        if !ttl.is_zero() {
            // Less than a second would be none at all.
            text += &format!("; Max-Age={}", ttl.as_secs().max(1));
        }
        if let Some(path) = &self.path {
            text += &format!("; Path={path}");
        }
        text += "; HttpOnly";
        HeaderValue::from_str(&text).ok()
    }
}

/// The key of a request. `fresh` is a number for a new cookie: at random, so that new clients
/// spread. What policies find is combined as Envoy does, in order
/// (`source/common/http/hash_policy.cc`).
pub fn key(policies: &[KeyPolicy], request: &Request<'_>, fresh: u64) -> Key {
    let mut key = Key::default();
    for policy in policies {
        let found = match &policy.of {
            KeyOf::Header(name) => request.header(name).map(|value| xxh64(&value, 0)),
            KeyOf::Query(name) => request.parameter(name).map(|value| xxh64(value.as_bytes(), 0)),
            KeyOf::Source => Some(source(request.connection.client)),
            KeyOf::Cookie(cookie) => match (request.cookie(&cookie.name), cookie.ttl) {
                (Some(value), _) => Some(xxh64(value.as_bytes(), 0)),
                (None, Some(ttl)) => {
                    let value = format!("{fresh:016x}");
                    key.set_cookies.extend(cookie.header(&value, ttl));
                    Some(xxh64(value.as_bytes(), 0))
                }
                (None, None) => None,
            },
        };
        if let Some(found) = found {
            key.hash = Some(key.hash.map_or(found, |hash| hash.rotate_left(1) ^ found));
        }
        if policy.terminal && key.hash.is_some() {
            break;
        }
    }
    key
}

fn source(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => xxh64(&address.octets(), 0),
        IpAddr::V6(address) => xxh64(&address.octets(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{Asked, asked};

    fn of(of: KeyOf) -> KeyPolicy {
        KeyPolicy { of, terminal: false }
    }

    fn header(name: &'static str) -> KeyPolicy {
        of(KeyOf::Header(HeaderName::from_static(name)))
    }

    fn cookie(ttl: Option<u64>, path: Option<&str>) -> KeyPolicy {
        of(KeyOf::Cookie(Cookie::new("sid", ttl.map(Duration::from_secs), path).unwrap()))
    }

    fn hash(policies: &[KeyPolicy], asked: &Asked) -> Option<u64> {
        key(policies, &asked.request(), 7).hash
    }

    #[test]
    fn equal_values_have_equal_keys_and_others_others() {
        let user = |name: &str| asked("GET", &format!("/?u={name}")).header("x-user", name);
        for policies in [[header("x-user")], [of(KeyOf::Query("u".into()))]] {
            assert!(hash(&policies, &user("ann")).is_some());
            assert_eq!(hash(&policies, &user("ann")), hash(&policies, &user("ann")));
            assert_ne!(hash(&policies, &user("ann")), hash(&policies, &user("bob")));
            assert_eq!(hash(&policies, &asked("GET", "/")), None);
        }
    }

    #[test]
    fn the_address_of_the_client_is_a_key_whatever_its_port() {
        let from = |client: &str| asked("GET", "/").client(client);
        let policies = [of(KeyOf::Source)];
        assert_ne!(hash(&policies, &from("10.0.0.1")), hash(&policies, &from("10.0.0.2")));
        assert_eq!(hash(&policies, &from("10.0.0.1")), hash(&policies, &from("::ffff:10.0.0.1")));
    }

    #[test]
    fn what_several_policies_find_is_combined_until_a_terminal_one() {
        let asked = asked("GET", "/").header("x-a", "1").header("x-b", "2");
        let (a, b) = (hash(&[header("x-a")], &asked), hash(&[header("x-b")], &asked));
        let both = hash(&[header("x-a"), header("x-b")], &asked);
        assert!(both != a && both != b);
        assert_ne!(both, hash(&[header("x-b"), header("x-a")], &asked), "the order counts");
        let terminal = |name| KeyPolicy { terminal: true, ..header(name) };
        assert_eq!(hash(&[terminal("x-a"), header("x-b")], &asked), a);
        // It found nothing, so the next one is asked.
        assert_eq!(hash(&[terminal("x-none"), header("x-b")], &asked), b);
        assert_eq!(hash(&[], &asked), None);
    }

    #[test]
    fn a_client_without_cookie_gets_one_that_brings_it_back() {
        let policies = [cookie(Some(3600), Some("/shop"))];
        let first = key(&policies, &asked("GET", "/").request(), 7);
        let set = "sid=0000000000000007; Max-Age=3600; Path=/shop; HttpOnly";
        assert_eq!(first.set_cookies, [set]);
        let again = asked("GET", "/").header("cookie", "sid=0000000000000007");
        let second = key(&policies, &again.request(), 8);
        assert_eq!((second.hash, second.set_cookies), (first.hash, vec![]));
    }

    #[test]
    fn a_cookie_without_a_time_is_only_read_and_one_of_zero_lasts_the_session() {
        let none = key(&[cookie(None, None)], &asked("GET", "/").request(), 7);
        assert_eq!(none, Key::default());
        let session = key(&[cookie(Some(0), None)], &asked("GET", "/").request(), 7);
        assert_eq!(session.set_cookies, ["sid=0000000000000007; HttpOnly"]);
    }

    #[test]
    fn what_no_cookie_can_hold_is_refused() {
        let error = Cookie::new("s d", None, None).unwrap_err().to_string();
        assert!(error.starts_with("`s d` is no name of a cookie"), "{error}");
        let error = Cookie::new("sid", None, Some("/a;b")).unwrap_err().to_string();
        assert!(error.starts_with("`/a;b` is no path of a cookie"), "{error}");
    }
}
