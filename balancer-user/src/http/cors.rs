//! Which scripts of other origins may ask (Fetch, "CORS protocol"; semantics 5.5).

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};

use super::{answer::Answer, filter::HeaderChange, request::Request};

/// What is allowed to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `https://shop.example.com`, `https://*.example.com`, or `*`.
    pub origins: Vec<Origin>,
    /// With cookies and the like.
    pub credentials: bool,
    /// Methods; `*`: all. GET, HEAD and POST need no leave.
    pub methods: Vec<String>,
    /// Headers of requests; `*`: all.
    pub headers: Vec<String>,
    /// Headers of answers that scripts may see; `*`: all.
    pub expose: Vec<String>,
    /// For how long clients may remember the leave, in seconds.
    pub max_age_seconds: u32,
}

/// An origin that is allowed, scheme and host in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every one.
    Any,
    /// This one.
    Exact(String),
    /// `scheme://*` and what follows: every host with more before it.
    Below {
        /// With `://`.
        scheme: String,
        /// `.example.com`, `.example.com:8080`.
        end: String,
    },
}

impl Origin {
    /// Reads an origin, with `*` for the first labels of its host. Case does not count.
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        if text == "*" {
            return Self::Any;
        }
        match text.split_once("://*") {
            Some((scheme, end)) => Self::Below { scheme: format!("{scheme}://"), end: end.into() },
            None => Self::Exact(text),
        }
    }

    fn takes(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => *wanted == origin,
            Self::Below { scheme, end } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(end.as_str()))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

impl Cors {
    /// The answer to a preflight request (Fetch, "CORS-preflight request"); `None`: it is none.
    /// One that is not allowed is answered without leave.
    pub fn preflight(&self, request: &Request<'_>) -> Option<Answer> {
        let headers = request.headers;
        if request.method != "OPTIONS" || !headers.contains_key(ORIGIN) {
            return None;
        }
        let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let mut answer = Answer::new(StatusCode::NO_CONTENT);
        let Some(leave) = self.leave(headers) else { return Some(answer) };
        let out = &mut answer.headers;
        for change in leave {
            change.apply(out);
        }
        let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        set(out, ACCESS_CONTROL_ALLOW_METHODS, self.list(&self.methods, Some(method)));
        set(out, ACCESS_CONTROL_ALLOW_HEADERS, self.list(&self.headers, wanted));
        set(out, ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from(self.max_age_seconds)));
        Some(answer)
    }

    /// What the answer to any other request gets; it replaces what the backend says of it.
    /// `None`: no other origin asks, or one without leave.
    pub fn leave(&self, headers: &HeaderMap) -> Option<Vec<HeaderChange>> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        if !self.origins.iter().any(|allowed| allowed.takes(&text)) {
            return None;
        }
        let mut leave = Vec::with_capacity(4);
        // With credentials a `*` would be taken for the name of an origin.
        if self.origins.contains(&Origin::Any) && !self.credentials {
            let any = HeaderValue::from_static("*");
            leave.push(HeaderChange::Set(ACCESS_CONTROL_ALLOW_ORIGIN, any));
        } else {
            leave.push(HeaderChange::Set(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            // Whoever keeps the answer must not give it to others.
            leave.push(HeaderChange::Append(VARY, HeaderValue::from_static("origin")));
        }
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            leave.push(HeaderChange::Set(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
        }
        if let Some(expose) = self.list(&self.expose, None) {
            leave.push(HeaderChange::Set(ACCESS_CONTROL_EXPOSE_HEADERS, expose));
        }
        Some(leave)
    }

    /// A list as a header has it. With credentials `*` means what is called so, and what was
    /// `asked` for is named instead.
    fn list(&self, names: &[String], asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        if names.iter().any(|name| name == "*") {
            let any = HeaderValue::from_static("*");
            return if self.credentials { asked.cloned() } else { Some(any) };
        }
        // Names that no header can hold are nobody's.
        (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{Asked, asked};

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shop() -> Cors {
        Cors {
            origins: ["https://shop.example", "https://*.example.com"].map(Origin::new).into(),
            credentials: true,
            methods: names(&["GET", "OPTIONS"]),
            headers: names(&["x-one", "x-two"]),
            expose: names(&["x-three"]),
            max_age_seconds: 3600,
        }
    }

    fn preflight(origin: &str) -> Asked {
        asked("OPTIONS", "/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "x-one")
    }

    fn answered(cors: &Cors, asked: &Asked) -> Vec<(String, String)> {
        let answer = cors.preflight(&asked.request()).unwrap();
        assert_eq!(answer.status, 204);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn value(list: &[(String, String)], name: &str) -> Option<String> {
        list.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_told_what_is_allowed() {
        for origin in ["https://shop.example", "https://a.b.example.com"] {
            let answer = answered(&shop(), &preflight(origin));
            let found = |name: &str| value(&answer, &format!("access-control-{name}"));
            assert_eq!(found("allow-origin").as_deref(), Some(origin));
            assert_eq!(found("allow-methods").as_deref(), Some("GET, OPTIONS"));
            assert_eq!(found("allow-headers").as_deref(), Some("x-one, x-two"));
            assert_eq!(found("expose-headers").as_deref(), Some("x-three"));
            assert_eq!(found("max-age").as_deref(), Some("3600"));
            assert_eq!(found("allow-credentials").as_deref(), Some("true"));
            assert_eq!(value(&answer, "vary").as_deref(), Some("origin"));
        }
    }

    #[test]
    fn a_preflight_of_another_origin_gets_no_leave() {
        for origin in
            ["https://example.com", "http://a.example.com", "https://aexample.com", "null"]
        {
            assert!(answered(&shop(), &preflight(origin)).is_empty(), "{origin}");
        }
    }

    #[test]
    fn options_without_a_method_to_ask_for_go_to_the_backend() {
        let cors = shop();
        let none = asked("OPTIONS", "/").header("origin", "https://shop.example");
        assert_eq!(cors.preflight(&none.request()), None);
        let none = asked("OPTIONS", "/").header("access-control-request-method", "GET");
        assert_eq!(cors.preflight(&none.request()), None);
        let get = asked("GET", "/")
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "GET");
        assert_eq!(cors.preflight(&get.request()), None);
    }

    #[test]
    fn other_requests_are_forwarded_and_their_answers_say_who_may_read_them() {
        let of = |origin: &str| {
            let asked = asked("GET", "/").header("origin", origin);
            let mut headers = HeaderMap::new();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("backend"));
            for change in shop().leave(asked.request().headers)? {
                change.apply(&mut headers);
            }
            Some(headers)
        };
        let headers = of("https://SHOP.example").unwrap();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://SHOP.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "x-three");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        assert_eq!(of("https://elsewhere.example"), None);
        assert_eq!(shop().leave(&HeaderMap::new()), None);
    }

    #[test]
    fn with_credentials_no_wildcard_is_sent() {
        let any = names(&["*"]);
        let with = Cors {
            origins: vec![Origin::Any],
            credentials: true,
            methods: any.clone(),
            headers: any.clone(),
            expose: any,
            max_age_seconds: 5,
        };
        let answer = answered(&with, &preflight("https://a.example"));
        assert!(answer.iter().all(|(_, value)| !value.contains('*')), "{answer:?}");
        let found = |name: &str| value(&answer, &format!("access-control-{name}"));
        assert_eq!(found("allow-origin").as_deref(), Some("https://a.example"));
        assert_eq!(found("allow-methods").as_deref(), Some("PUT"));
        assert_eq!(found("allow-headers").as_deref(), Some("x-one"));

        let without = Cors { credentials: false, ..with };
        let answer = answered(&without, &preflight("https://a.example"));
        for name in ["allow-origin", "allow-methods", "allow-headers", "expose-headers"] {
            let found = value(&answer, &format!("access-control-{name}"));
            assert_eq!(found.as_deref(), Some("*"), "{name}");
        }
        assert_eq!(value(&answer, "access-control-allow-credentials"), None);
        assert_eq!(value(&answer, "vary"), None);
    }
}
