//! What an `http` entry of a TrafficRoute matches and changes (semantics 3.8 and 3.9).

use std::collections::BTreeMap;

use crate::http::{Pattern, Substitution};

/// `conf.http[].match`. Every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// `method`.
    pub method: Option<StringMatcher>,
    /// `path`, without the query.
    pub path: Option<StringMatcher>,
    /// `headers`, by name as written.
    pub headers: BTreeMap<String, StringMatcher>,
}

/// How a string is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatcher {
    /// It begins with these bytes.
    Prefix(String),
    /// It is this.
    Exact(String),
    /// The whole of it matches this regular expression.
    Regex(Pattern),
}

/// `conf.http[].modify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpModify {
    /// `path`.
    pub path: Option<PathRewrite>,
    /// `host`.
    pub host: Option<HostRewrite>,
    /// `requestHeaders`.
    pub request_headers: HeaderChanges,
    /// `responseHeaders`.
    pub response_headers: HeaderChanges,
}

/// `modify.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The matched prefix becomes this.
    Prefix(String),
    /// Every match becomes the substitution.
    Regex(Substitution),
}

/// `modify.host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// This host.
    Value(String),
    /// The path with every match substituted.
    FromPath(Substitution),
}

/// Header removals, then additions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In written order.
    pub add: Vec<HeaderAdd>,
    /// Names.
    pub remove: Vec<String>,
}

/// A header to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderAdd {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Keep the values that are there, instead of replacing them.
    pub append: bool,
}
