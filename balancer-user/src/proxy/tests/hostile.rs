//! Clients that mean no good, or cannot write HTTP.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{
    floods::poured,
    frames::*,
    world::{Saw, World, dataplane, echo, head, raw},
};
use crate::proxy::{Cause, Limits, Options};

pub(super) async fn world(options: Options) -> (World, Saw) {
    let saw = Saw::default();
    let at = echo("seen", &saw).await;
    (World::new(&policies(at), options), saw)
}

/// A service at one address, with an HTTP rule for every request.
fn policies(at: SocketAddr) -> String {
    let route = "type: TrafficRoute\nmesh: default\nname: shop\nsources: [{match: \
                 {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: web}}]\nconf:\n  \
                 http: [{match: {path: {prefix: /}}, destination: {kuma.io/service: web}}]\n  \
                 destination: {kuma.io/service: web}\n---\n";
    route.to_owned() + &dataplane("web", "http", "v1", at)
}

pub(super) fn limits(limits: Limits) -> Options {
    Options { limits, ..Options::default() }
}

/// Codes of all answers in what a client read.
fn codes(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

#[tokio::test]
async fn what_contradicts_itself_is_refused_and_the_connection_ends() {
    let (world, saw) = world(Options::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 17));
    let fields: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    for (code, request) in [
        ("400", "GET / HTTP/1.1\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n"),
        ("400", "GET http://b/ HTTP/1.1\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded: 2\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\n host: a\r\n\r\n"),
        ("400", "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("400", "GET a.test:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("400", "GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("400", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
        ("400", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc"),
        ("400", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("400", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: \
             chunked\r\n\r\n0\r\n\r\n",
        ),
        ("400", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("501", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("501", "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("431", &long),
        ("431", &many),
    ] {
        // A second request behind it, which nobody may get.
        let sent =
            format!("{request}GET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answers = timeout(Duration::from_secs(10), world.raw(&sent)).await.expect(request);
        assert_eq!(codes(&answers), [code], "{request:?}: {answers}");
    }
    assert!(saw.all().is_empty(), "{:?}", saw.all());
    for (cause, times) in [(Cause::HeadSize, 2), (Cause::NotImplemented, 2), (Cause::Malformed, 21)]
    {
        world.until(|counted| counted.of(cause) == times).await;
    }
    world.is_at_rest().await;
}

#[tokio::test]
async fn of_two_lengths_the_chunks_count_and_nothing_follows() {
    let (world, saw) = world(Options::default()).await;
    for headers in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let sent = format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let answers = world.raw(&sent).await;
        assert_eq!(codes(&answers), ["200"], "{answers}");
        let seen = saw.last();
        assert_eq!((seen.head.uri.path(), seen.body.len()), ("/", 0));
        assert_eq!(seen.header("content-length").unwrap_or("0"), "0");
    }
    assert_eq!(saw.all().len(), 2);
}

#[tokio::test]
async fn the_host_of_an_absolute_target_counts() {
    let (world, saw) = world(Options::default()).await;
    world.raw("GET http://b.test/x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    let seen = saw.last();
    assert_eq!((seen.header("host"), seen.head.uri.to_string()), (Some("b.test"), "/x".to_owned()));
}

#[tokio::test]
async fn a_chunk_that_is_none_ends_the_request() {
    let (world, saw) = world(Options::default()).await;
    // The first one ends with an LF, and what follows would be taken for trailers.
    for chunk in [
        "0\r\n\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        "x\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "3\r\nabcd\r\n",
    ] {
        let sent = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
        );
        let answers = timeout(Duration::from_secs(10), world.raw(&sent)).await.expect(chunk);
        assert_eq!(codes(&answers), ["400"], "{chunk:?}: {answers}");
    }
    assert_eq!(world.counted().of(Cause::Malformed), 5);
    assert!(saw.all().is_empty());
}

#[tokio::test]
async fn nothing_is_read_behind_trailers() {
    let (world, saw) = world(Options::default()).await;
    let asked = "POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nt: v";
    let second = "GET /second HTTP/1.1\r\nhost: a\r\n\r\n";
    for end in ["\r\n\r\n", "\n\n"] {
        let answers = world.raw(&format!("{asked}{end}{second}{second}")).await;
        assert_eq!(codes(&answers), ["200"], "{end:?}: {answers}");
        assert_eq!(saw.last().head.uri, "/first");
    }
    assert_eq!(saw.all().len(), 2);
}

#[tokio::test]
async fn a_body_in_chunks_arrives_whatever_the_method() {
    let (world, saw) = world(Options::default()).await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST"] {
        let sent = format!(
            "{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\n"
        );
        assert_eq!(codes(&world.raw(&sent).await), ["200"], "{method}");
        assert_eq!(saw.last().body, "abc", "{method}");
    }
}

#[tokio::test]
async fn who_never_ends_a_head_is_cut_off() {
    let quick = Limits { head_within: Duration::from_millis(500), ..Limits::default() };
    let (world, _) = world(limits(quick)).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HT"] {
        let mut stream = world.connect().await;
        let began = Instant::now();
        stream.write_all(begun.as_bytes()).await.unwrap();
        // A byte now and then is no progress.
        let mut answer = Vec::new();
        let read = async {
            loop {
                tokio::select! {
                    read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { return },
                    () = sleep(Duration::from_millis(100)) => {}
                }
                if begun.starts_with("GET") && stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(20), read).await.expect(begun);
        assert!(began.elapsed() >= Duration::from_millis(300), "{begun:?}");
    }
    world.until(|counted| counted.of(Cause::HeadWithin) == 3).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_asks_is_not() {
    let quick = Limits { idle: Duration::from_millis(400), ..Limits::default() };
    let (world, _) = world(limits(quick)).await;
    let mut stream = world.connect().await;
    for _ in 0..4 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    let mut byte = [0];
    let ended = timeout(Duration::from_secs(20), stream.read(&mut byte)).await.expect("it ends");
    assert_eq!(ended.unwrap(), 0);
    world.until(|counted| counted.of(Cause::Idle) == 1).await;
}

#[tokio::test]
async fn who_asks_and_reads_no_answer_is_not_read_and_then_cut_off() {
    let second = Duration::from_secs(1);
    let quick = Limits { idle: second, stalled: second, ..Limits::default() };
    let (world, _) = world(limits(quick)).await;
    let mut stream = world.connect().await;
    let requests = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let most = 256 << 20;
    let went = poured(&mut stream, requests.as_bytes(), most).await;
    assert!(went < most, "{went} bytes were read");
    // Between two answers that are as small as these the connection is idle.
    world.until(|counted| counted.of(Cause::Idle) + counted.of(Cause::Stalled) == 1).await;
    world.is_at_rest().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_to_the_backend() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let at = raw(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            tell.send("asked").unwrap();
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
            tell.send("left").unwrap();
        }
    })
    .await;
    let world = World::new(&policies(at), Options::default());
    let mut http1 = world.connect().await;
    http1.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut http2 = Http2::connect(&world, &[]).await;
    for client in ["HTTP/1.1", "HTTP/2"] {
        if client == "HTTP/2" {
            assert!(http2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await);
        }
        assert_eq!(told.recv().await, Some("asked"));
        match client {
            "HTTP/2" => assert!(http2.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await),
            // One that only ends its side looks the same.
            _ => http1.shutdown().await.unwrap(),
        }
        let left = timeout(Duration::from_secs(10), told.recv()).await.expect(client);
        assert_eq!(left, Some("left"), "{client}");
    }
    drop(http2);
    world.is_at_rest().await;
}

#[tokio::test]
async fn who_dials_the_listener_itself_is_told_that_it_is_no_service() {
    let (world, saw) = world(Options::default()).await;
    world.publish("type: Mesh\nname: default\n---\n");
    // For one more epoch connections of before are served.
    world.publish("type: Mesh\nname: default\n---\n");
    let answers = world.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(codes(&answers), ["421"], "{answers}");
    assert!(saw.all().is_empty());
    assert_eq!(world.counted().of(Cause::Misdirected), 1);
}

#[tokio::test]
async fn hops_of_trace_and_options_are_counted_on_the_way() {
    let (world, saw) = world(Options::default()).await;
    for (method, left, code) in [
        ("OPTIONS", "0", "200"),
        ("TRACE", "0", "501"),
        ("TRACE", "x", "400"),
        ("OPTIONS", "3", "200"),
    ] {
        let answers = world
            .raw(&format!(
                "{method} / HTTP/1.1\r\nhost: a\r\nmax-forwards: {left}\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(codes(&answers), [code], "{method} {left}: {answers}");
    }
    assert_eq!(saw.all().len(), 1);
    assert_eq!(saw.last().header("max-forwards"), Some("2"));
}

#[tokio::test]
async fn a_client_has_no_more_connections_than_its_part() {
    let few = Limits { connections_of_one: 2, ..Limits::default() };
    let (world, _) = world(limits(few)).await;
    let (first, _second) = (world.connect().await, world.connect().await);
    sleep(Duration::from_millis(200)).await;
    let mut third = world.connect().await;
    let mut byte = [0];
    assert_eq!(third.read(&mut byte).await.unwrap_or(0), 0);
    assert_eq!(world.counted().of(Cause::ConnectionsOfOne), 1);
    drop(first);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.get("/", &[]).await.status(), 200);
}

#[tokio::test]
async fn where_all_places_are_taken_the_next_waits() {
    let few = Limits { connections: 1, ..Limits::default() };
    let (world, _) = world(limits(few)).await;
    let first = world.connect().await;
    sleep(Duration::from_millis(200)).await;
    let waits = world.get("/", &[]);
    tokio::pin!(waits);
    assert!(timeout(Duration::from_millis(300), &mut waits).await.is_err());
    drop(first);
    let answer = timeout(Duration::from_secs(20), waits).await.expect("there is room");
    assert_eq!(answer.status(), 200);
    // Once before the first one that had to wait; the last place is taken again since.
    assert!(world.counted().of(Cause::Connections) >= 1);
}

#[tokio::test]
async fn connection_that_was_silent_for_long_goes_on_where_it_was() {
    let (world, saw) = world(Options::default()).await;
    let mut stream = world.connect().await;
    let mut answered = async |request: &str| {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        (answer.starts_with("HTTP/1.1 200"), body)
    };
    // The second time with the beginning of the next request, which is in the same segment.
    let once = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(answered(once).await, (true, *b"seen"));
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(answered(&format!("{once}{}", &once[..20])).await, (true, *b"seen"));
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(answered(&once[20..]).await, (true, *b"seen"));
    assert_eq!(saw.all().len(), 3);
}
