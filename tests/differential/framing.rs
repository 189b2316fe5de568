//! Cases about where a request ends.

use super::cases::{Case, END, Family, SECOND};

/// Begins a request with a body that has these fields and then this.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n{rest}{SECOND}")
}

pub(crate) fn lengths(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "length" };
    family.each(
        &[
            "3",
            "03",
            "003",
            "+3",
            "-3",
            "0x3",
            "3 ",
            " 3",
            "\t3",
            "3\t",
            "3,3",
            "3, 3",
            "3,4",
            "3;4",
            "3.0",
            "3e0",
            "",
            "three",
            "3 3",
            "\"3\"",
            "3\0",
            "\u{663}",
            "99999999999999999999",
            "18446744073709551615",
            "18446744073709551619",
            "-0",
            "3\x0b",
        ],
        &post("content-length:{}\r\n", "abc"),
    );
    for (what, fields) in [
        ("two alike", "content-length: 3\r\ncontent-length: 3\r\n"),
        ("two, the first is right", "content-length: 3\r\ncontent-length: 0\r\n"),
        ("two, the second is right", "content-length: 0\r\ncontent-length: 3\r\n"),
        ("a blank before the colon", "content-length : 3\r\n"),
        ("an underscore", "content_length: 3\r\n"),
        ("folded", "content-length:\r\n 3\r\n"),
        ("a letter of another case", "Content-LENGTH: 3\r\n"),
        ("named by connection", "connection: content-length\r\ncontent-length: 3\r\n"),
        ("a null behind the name", "content-length\0: 3\r\n"),
    ] {
        family.add(what, post(fields, "abc"));
    }
    family.add("none", post("", ""));
    family.add(
        "of GET",
        format!("GET / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabc{SECOND}"),
    );
    family.add(
        "of HEAD",
        format!("HEAD / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabc{SECOND}"),
    );
    family.add(
        "of 1.0",
        format!("POST / HTTP/1.0\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabc{SECOND}"),
    );
    family.add(
        "less than is said",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 9\r\n\r\nabc",
    );
}

pub(crate) fn codings(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "coding" };
    family.each(
        &[
            "chunked",
            "Chunked",
            "CHUNKED",
            " chunked ",
            "\tchunked",
            "chunked\t",
            "x",
            "xchunked",
            "chunkedx",
            "chunk",
            "chunked, chunked",
            "gzip, chunked",
            "gzip,chunked",
            "chunked, gzip",
            "identity",
            "chunked, identity",
            "identity, chunked",
            "\"chunked\"",
            "'chunked'",
            "chunked;q=1",
            "chunked; a=b",
            ",chunked",
            "chunked,",
            ",",
            "",
            "chunked\x0b",
            "\x0bchunked",
            "\x0cchunked",
            "chunked\0",
            "chun\0ked",
            "chunked\x7f",
            "\u{2003}chunked",
            "chunked chunked",
        ],
        &post("transfer-encoding:{}\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    );
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for (what, fields) in [
        ("a blank before the colon", "transfer-encoding : chunked\r\n"),
        ("an underscore", "transfer_encoding: chunked\r\n"),
        ("folded", "transfer-encoding:\r\n chunked\r\n"),
        ("folded behind", "transfer-encoding: chunked\r\n , identity\r\n"),
        ("two alike", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("two, chunked first", "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n"),
        ("two, chunked last", "transfer-encoding: x\r\ntransfer-encoding: chunked\r\n"),
        ("named by connection", "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n"),
        ("a null behind the name", "transfer-encoding\0: chunked\r\n"),
        ("te instead", "te: chunked\r\n"),
        ("behind a length", "content-length: 13\r\ntransfer-encoding: chunked\r\n"),
        ("before a length", "transfer-encoding: chunked\r\ncontent-length: 13\r\n"),
        (
            "behind a length that is too short",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            "before a length that is too short",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        ),
        ("behind a length that is none", "content-length: x\r\ntransfer-encoding: chunked\r\n"),
        ("before a length that is none", "transfer-encoding: chunked\r\ncontent-length: x\r\n"),
        ("another one and a length", "transfer-encoding: x\r\ncontent-length: 13\r\n"),
        ("identity and a length", "transfer-encoding: identity\r\ncontent-length: 13\r\n"),
    ] {
        family.add(what, post(fields, chunks));
    }
    family.add(
        "of 1.0",
        format!(
            "POST / HTTP/1.0\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SECOND}"
        ),
    );
    family.add(
        "of 1.0 with a length",
        format!(
            "POST / HTTP/1.0\r\nhost: a.test\r\ntransfer-encoding: chunked\r\ncontent-length: 13\r\n\r\n\
             {chunks}{SECOND}"
        ),
    );
    family.add(
        "of GET",
        format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SECOND}"
        ),
    );
}

pub(crate) fn chunks(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "chunk" };
    let chunked = "transfer-encoding: chunked\r\n";
    let sizes = [
        "3",
        "03",
        "0000000003",
        "00000000000000000003",
        "3;",
        "3;a",
        "3;a=b",
        "3;a=\"b\"",
        "3 ;a",
        "3; a",
        "3 ",
        "3\t",
        " 3",
        "+3",
        "-3",
        "0x3",
        "3g",
        "g",
        "",
        "3 3",
        "3,",
        "3.",
        "3\0",
        "3;\0",
        "3;a\x0bb",
        "3;a\rb",
        "3;a\nb",
        "fffffffffffffffff",
        "ffffffffffffffff",
        "10000000000000003",
        "7fffffffffffffff",
    ];
    family.each(&sizes, &post(chunked, "{}\r\nabc\r\n0\r\n\r\n"));
    for (what, rest) in [
        ("lf behind the size", "3\nabc\r\n0\r\n\r\n"),
        ("cr behind the size", "3\rabc\r\n0\r\n\r\n"),
        ("cr cr lf behind the size", "3\r\r\nabc\r\n0\r\n\r\n"),
        ("lf behind an extension", "3;a\nabc\r\n0\r\n\r\n"),
        ("lf behind the data", "3\r\nabc\n0\r\n\r\n"),
        ("cr behind the data", "3\r\nabc\r0\r\n\r\n"),
        ("nothing behind the data", "3\r\nabc0\r\n\r\n"),
        ("more data than is said", "3\r\nabcd\r\n0\r\n\r\n"),
        ("two bytes for the line end", "3\r\nabcXX0\r\n\r\n"),
        ("upper case", "A\r\nabcdefghij\r\n0\r\n\r\n"),
        ("end of many zeros", "3\r\nabc\r\n0000\r\n\r\n"),
        ("end with an extension", "3\r\nabc\r\n0;a\r\n\r\n"),
        ("end with lf", "3\r\nabc\r\n0\n\n"),
        ("end with lf behind the size", "3\r\nabc\r\n0\n\r\n"),
        ("end with lf at last", "3\r\nabc\r\n0\r\n\n"),
        ("end with a blank", "3\r\nabc\r\n0\r\n \r\n"),
        ("no chunk but the end", "0\r\n\r\n"),
        ("a trailer", "3\r\nabc\r\n0\r\nt: v\r\n\r\n"),
        ("a trailer that is a length", "3\r\nabc\r\n0\r\ncontent-length: 3\r\n\r\n"),
        ("a trailer that is a host", "3\r\nabc\r\n0\r\nhost: b.test\r\n\r\n"),
        ("a trailer that is folded", "3\r\nabc\r\n0\r\nt: v\r\n w\r\n\r\n"),
        ("a trailer without a colon", "3\r\nabc\r\n0\r\nt\r\n\r\n"),
        ("a trailer with a blank before the colon", "3\r\nabc\r\n0\r\nt : v\r\n\r\n"),
        ("a trailer with a null", "3\r\nabc\r\n0\r\nt: \0\r\n\r\n"),
        (
            "a trailer that looks like a request",
            "3\r\nabc\r\n0\r\nGET /third HTTP/1.1\r\nhost: b.test\r\n\r\n",
        ),
    ] {
        family.add(what, post(chunked, rest));
    }
    for kilobytes in [1, 20] {
        let long = "a".repeat(kilobytes * 1024);
        family.add(
            &format!("an extension of {kilobytes} KiB"),
            post(chunked, &format!("3;{long}\r\nabc\r\n0\r\n\r\n")),
        );
    }
    let trailer = "v".repeat(40 * 1024);
    family.add(
        "a trailer of 40 KiB",
        post(chunked, &format!("3\r\nabc\r\n0\r\nt: {trailer}\r\n\r\n")),
    );
    family.add(
        "no end",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
}

pub(crate) fn line_ends(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "line end" };
    let good = format!("GET / HTTP/1.1\r\n{END}");
    for (what, request) in [
        ("all lf", good.replace("\r\n", "\n")),
        ("all cr", good.replace("\r\n", "\r")),
        ("all cr cr lf", good.replace("\r\n", "\r\r\n")),
        ("all lf cr", good.replace("\r\n", "\n\r")),
        ("lf behind the first line", good.replacen("\r\n", "\n", 1)),
        ("cr behind the first line", good.replacen("\r\n", "\r", 1)),
        ("lf behind a field", good.replace("a.test\r\n", "a.test\n")),
        ("cr behind a field", good.replace("a.test\r\n", "a.test\r")),
        ("lf lf at the end", good.replace("close\r\n\r\n", "close\n\n")),
        ("crlf lf at the end", good.replace("close\r\n\r\n", "close\r\n\n")),
        ("lf crlf at the end", good.replace("close\r\n\r\n", "close\n\r\n")),
        ("crlf cr at the end", good.replace("close\r\n\r\n", "close\r\n\rx")),
        ("crlf in front", format!("\r\n{good}")),
        ("crlf crlf in front", format!("\r\n\r\n{good}")),
        ("many crlf in front", "\r\n".repeat(50) + &good),
        ("lf in front", format!("\n{good}")),
        ("cr in front", format!("\r{good}")),
        ("a blank in front", format!(" {good}")),
        ("a blank line in front", format!(" \r\n{good}")),
        ("a null in front", format!("\0{good}")),
        ("a line of a blank within", good.replacen("connection", " \r\nconnection", 1)),
        (
            "a field behind an lf in a value",
            good.replacen("connection", "x: a\nhost: b.test\r\nconnection", 1),
        ),
        (
            "a field behind a cr in a value",
            good.replacen("connection", "x: a\rhost: b.test\r\nconnection", 1),
        ),
        ("no end", "GET / HTTP/1.1\r\nhost: a.test\r\n".to_owned()),
        ("nothing", String::new()),
        ("crlf alone", "\r\n".to_owned()),
        ("tls", "\x16\x03\x01\x01\x00\x01\x00\x00\x00\x03\x03\r\n\r\n".to_owned()),
    ] {
        family.add(what, request);
    }
}

pub(crate) fn pipelines(cases: &mut Vec<Case>) {
    let mut family = Family { cases, name: "pipeline" };
    let first = "GET /first HTTP/1.1\r\nhost: a.test\r\n";
    for (what, request) in [
        ("two", format!("{first}\r\n{SECOND}")),
        ("three", format!("{first}\r\n{first}\r\n{SECOND}")),
        ("crlf between", format!("{first}\r\n\r\n{SECOND}")),
        ("a blank between", format!("{first}\r\n {SECOND}")),
        ("rubbish between", format!("{first}\r\nrubbish\r\n\r\n{SECOND}")),
        ("a bad one first", format!("GET /first HTTP/1.1\r\nhost: a/b\r\n\r\n{SECOND}")),
        (
            "a bad one last",
            format!("{first}\r\nGET /second HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ),
        ("the first one closes", format!("{first}connection: close\r\n\r\n{SECOND}")),
        (
            "the first one closes and does not",
            format!("{first}connection: close, keep-alive\r\n\r\n{SECOND}"),
        ),
        ("the first one closes in one of two", {
            format!("{first}connection: close\r\nconnection: keep-alive\r\n\r\n{SECOND}")
        }),
        ("a head, then another", format!("{}\r\n{SECOND}", first.replace("GET", "HEAD"))),
        ("of 1.0", format!("GET /first HTTP/1.0\r\nhost: a.test\r\n\r\n{SECOND}")),
        (
            "of 1.0 that stays",
            format!(
                "GET /first HTTP/1.0\r\nhost: a.test\r\nconnection: keep-alive\r\n\r\n{SECOND}"
            ),
        ),
        ("a body, then another", post("content-length: 3\r\n", "abc")),
        (
            "a body that looks like a request",
            post("content-length: 33\r\n", "GET /third HTTP/1.1\r\nhost: b\r\n\r\n"),
        ),
        ("chunks, then another", post("transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")),
        ("expect and a body", post("expect: 100-continue\r\ncontent-length: 3\r\n", "abc")),
        ("expect something else", post("expect: x\r\ncontent-length: 3\r\n", "abc")),
        (
            "upgrade to h2c",
            format!(
                "{first}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n{SECOND}"
            ),
        ),
        (
            "upgrade to websocket",
            format!("{first}connection: upgrade\r\nupgrade: websocket\r\n\r\n{SECOND}"),
        ),
        (
            "upgrade with a body",
            post("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n", "abc"),
        ),
        ("connection names the host", format!("{first}connection: host\r\n\r\n{SECOND}")),
        (
            "connection names a field",
            format!("{first}x-hop: v\r\nconnection: x-hop\r\n\r\n{SECOND}"),
        ),
        ("connection is no list", format!("{first}connection: @\r\n\r\n{SECOND}")),
        (
            "connect, then another",
            format!("CONNECT a.test:80 HTTP/1.1\r\nhost: a.test\r\n\r\n{SECOND}"),
        ),
        ("options of all", format!("OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n{SECOND}")),
        (
            "trace with a body",
            format!("TRACE / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabc{SECOND}"),
        ),
        ("the preface of http/2", format!("{first}\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    ] {
        family.add(what, request);
    }
}
