//! The cases: each family changes one thing of a request that is all right.

use super::framing;

/// Bytes that a client sends.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `FAMILY/WHAT`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What ends a head.
pub(crate) const END: &str = "host: a.test\r\nconnection: close\r\n\r\n";
/// A second request, which nobody may get where the first one is refused or has a body.
pub(crate) const SECOND: &str = "GET /second HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";

/// Adds one for each thing that is different: its bytes as text name it.
pub(crate) struct Family<'c> {
    pub(crate) cases: &'c mut Vec<Case>,
    pub(crate) name: &'static str,
}

impl Family<'_> {
    pub(crate) fn add(&mut self, what: &str, bytes: impl AsRef<[u8]>) {
        self.cases
            .push(Case { name: format!("{}/{what}", self.name), bytes: bytes.as_ref().to_vec() });
    }

    /// One for each text, in the place of `{}`.
    pub(crate) fn each(&mut self, texts: &[&str], request: &str) {
        for text in texts {
            self.one(text.as_bytes(), request);
        }
    }

    /// One, named by its bytes.
    pub(crate) fn one(&mut self, text: &[u8], request: &str) {
        let (before, after) = request.split_once("{}").expect("a place for it");
        let name = match text.len() {
            0 => "(nothing)".to_owned(),
            // Blanks at an end would not be seen.
            1..=60 if text.starts_with(b" ") || text.ends_with(b" ") => {
                text.escape_ascii().to_string().replace(' ', "\\x20")
            }
            1..=60 => text.escape_ascii().to_string(),
            length => format!("{} ({length} bytes)", text[..10].escape_ascii()),
        };
        self.add(&name, [before.as_bytes(), text, after.as_bytes()].concat());
    }
}

pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    methods(&mut cases);
    targets(&mut cases);
    versions(&mut cases);
    fields(&mut cases);
    hosts(&mut cases);
    sizes(&mut cases);
    framing::lengths(&mut cases);
    framing::codings(&mut cases);
    framing::chunks(&mut cases);
    framing::line_ends(&mut cases);
    framing::pipelines(&mut cases);
    cases
}

fn methods(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "method" };
    let request = format!("{{}} / HTTP/1.1\r\n{END}");
    family.each(
        &[
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
            "QUERY", "M-SEARCH", "PROPFIND", "PRI", "get", "Get", "G@T", "GE\tT", "GE\0T", "GET\t",
            " GET", "GET ", "{GET}", "G/T", "G:T", "G\"T", "", "GET\x7f", "G\u{e9}T",
        ],
        &request,
    );
    family.one(&[b'G'; 5000], &request);
}

fn targets(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "target" };
    let request = format!("GET {{}} HTTP/1.1\r\n{END}");
    family.each(
        &[
            "/",
            "//",
            "///a",
            "/..",
            "/../../etc",
            "/a/./b",
            "/a/../b",
            "/%2e%2e/",
            "/%2f",
            "/%00",
            "/%0d%0a",
            "/%zz",
            "/%",
            "/a b",
            "/a\tb",
            "/\0",
            "/\x01",
            "/\x7f",
            "/\u{e9}",
            "*",
            "a",
            "?q",
            "/a#f",
            "/?a?b#c",
            "http://a.test/",
            "http://b.test/",
            "http://a.test",
            "http://a.test?q",
            "HTTP://a.test/",
            "https://a.test/",
            "ftp://a.test/",
            "http://",
            "http:///a",
            "http://u@a.test/",
            "http://a.test:99999/",
            "http://a.test:/",
            "//b.test/x",
            "http:a",
            "a.test:80",
            "/\"",
            "/<>",
            "/{x}",
            "/a|b",
            "/a^b",
            "/a`b",
            "/a\\b",
            "/[]",
            "",
        ],
        &request,
    );
    family.one(&[b"/".as_slice(), &[b'a'; 6000]].concat(), &request);
    family.one(&[b"/".as_slice(), &[b'a'; 70_000]].concat(), &request);
}

fn versions(cases: &mut Vec<Case>) {
    Family { cases, name: "version" }.each(
        &[
            "HTTP/1.1",
            "HTTP/1.0",
            "HTTP/0.9",
            "HTTP/1.2",
            "HTTP/1.9",
            "HTTP/2.0",
            "HTTP/3.0",
            "HTTP/1.10",
            "HTTP/01.1",
            "HTTP/1.01",
            "http/1.1",
            "HtTP/1.1",
            "HTTP/1,1",
            "HTTP/1.",
            "HTTP/.1",
            "HTTP/1",
            "HTTP/",
            "HTTP 1.1",
            "HTTP/1.1 ",
            "HTTP/1.1\t",
            "HTTP/1.1 x",
            " HTTP/1.1",
            "HTTP/-1.1",
            "HTTPS/1.1",
            "FTP/1.1",
            "",
        ],
        &format!("GET / {{}}\r\n{END}"),
    );
}

fn fields(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "field" };
    let request = format!("GET / HTTP/1.1\r\n{{}}\r\n{END}");
    family.each(
        &[
            // Names.
            "x: v",
            "X-Y: v",
            "x : v",
            "x\t: v",
            " x: v",
            "\tx: v",
            "x y: v",
            "x:: v",
            ": v",
            ":",
            "x",
            "x\0: v",
            "x\x01: v",
            "x\x7f: v",
            "x\u{e9}: v",
            "(x): v",
            "x/y: v",
            "x@: v",
            "x_y: v",
            "x.y: v",
            "\"x\": v",
            "x=y: v",
            "x[0]: v",
            "x;y: v",
            "x,y: v",
            "x!#$%&'*+-.^_`|~: v",
            // Values.
            "x:v",
            "x:",
            "x: ",
            "x:\tv\t",
            "x: a\tb",
            "x: a\0b",
            "x: a\x01b",
            "x: a\x0bb",
            "x: a\x7fb",
            "x: a\u{e9}b",
            "x: a\rb",
            "x: a\nb",
            "x: a\n b",
            "x: a\r\n b",
            "x: a\r\n\tb",
            "x: a\r\n \r\n b",
            "x: \r\n b",
            "x: a\r\n: b",
        ],
        &request,
    );
    family.one(&[b"x".repeat(300), b": v".to_vec()].concat(), &request);
    family.add("value of 128 to 255", {
        let mut request = b"GET / HTTP/1.1\r\nx: ".to_vec();
        request.extend(128..=255);
        [&request, b"\r\n".as_slice(), END.as_bytes()].concat()
    });
    Family { cases, name: "first field" }.each(
        &["x: v", " x: v", "\tx: v", " host: b.test", "x", " ", "\t"],
        &format!("GET / HTTP/1.1\r\n{{}}\r\n{END}"),
    );
}

fn hosts(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "host" };
    family.each(
        &[
            "",
            "host: a.test\r\n",
            "host:\r\n",
            "host: \r\n",
            "host: a.test\r\nhost: a.test\r\n",
            "host: a.test\r\nhost: b.test\r\n",
            "host: a.test\r\nHost : b.test\r\n",
            "host: a.test\r\n host: b.test\r\n",
            "host: a b\r\n",
            "host: a/b\r\n",
            "host: u@a.test\r\n",
            "host: a.test:80\r\n",
            "host: a.test:\r\n",
            "host: a.test:x\r\n",
            "host: a.test:99999\r\n",
            "host: [::1]\r\n",
            "host: [::1\r\n",
            "host: a,b\r\n",
            "host: a.test, b.test\r\n",
            "host: A.TEST\r\n",
            "host: a.test.\r\n",
            "host: a\0b\r\n",
            "host: -\r\n",
            "host: %61.test\r\n",
            "host: a?b\r\n",
            "host: a#b\r\n",
            "host: a\\b\r\n",
            "host: a_b\r\n",
            "host: \u{e9}.test\r\n",
            "host: ..\r\n",
            "host: http://a.test\r\n",
            "host: 127.0.0.1:80:80\r\n",
        ],
        "GET / HTTP/1.1\r\n{}connection: close\r\n\r\n",
    );
    let old = |host: &str| format!("GET / HTTP/1.0\r\n{host}\r\n");
    family.add("of 1.0, none", old(""));
    family.add("of 1.0, two", old("host: a.test\r\nhost: b.test\r\n"));
    for (what, target) in [("same", "http://a.test/"), ("other", "http://b.test/")] {
        family.add(
            &format!("absolute target, {what}, and one of each"),
            format!(
                "GET {target} HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\nconnection: close\r\n\r\n"
            ),
        );
    }
}

fn sizes(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "size" };
    // With host and connection.
    for count in [50, 90, 98, 99, 100, 150, 1000] {
        let fields: String = (0..count).map(|n| format!("y-{n}: v\r\n")).collect();
        family.add(&format!("{count} fields and two"), format!("GET / HTTP/1.1\r\n{fields}{END}"));
    }
    for kilobytes in [4, 12, 20, 40, 60, 70, 200] {
        let value = "v".repeat(kilobytes * 1024);
        family.add(
            &format!("a field of {kilobytes} KiB"),
            format!("GET / HTTP/1.1\r\ny: {value}\r\n{END}"),
        );
    }
}
