//! Backends that are not there, break off, or take their time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ::http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::world::{Saw, World, dataplane, echo, head, raw};
use crate::proxy::{Limits, Options};

/// A TrafficRoute with an HTTP rule for every request.
const ROUTE: &str = "
type: TrafficRoute
mesh: default
name: shop
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: web}}]
conf:
  http:
  - match: {path: {prefix: /}}
    destination: {kuma.io/service: web}
  destination: {kuma.io/service: web}
---
";

fn policies(backends: &[SocketAddr]) -> String {
    let planes = backends.iter().map(|at| dataplane("web", "http", "v1", *at));
    ROUTE.to_owned() + &planes.collect::<String>()
}

fn quick() -> Options {
    let limits = Limits { stalled: Duration::from_millis(500), ..Limits::default() };
    Options { limits, ..Options::default() }
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn answer(stream: &mut TcpStream, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/")
        .header("host", "a")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_passed_over() {
    let saw = Saw::default();
    let there = echo("there", &saw).await;
    let world = World::new(&policies(&[nobody().await, there]), Options::default());
    for _ in 0..4 {
        assert_eq!(world.send(post("body")).await.status(), StatusCode::OK);
    }
    assert!(saw.all().iter().all(|seen| seen.body == "body"));
}

#[tokio::test]
async fn where_no_endpoint_can_be_reached_the_answer_is_503() {
    let world = World::new(&policies(&[nobody().await, nobody().await]), Options::default());
    let answer = world.get("/", &[]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(&answer.body()[..], b"the backend cannot be reached\n");
    let call = world.get("/", &[("content-type", "application/grpc")]).await;
    assert_eq!(
        (call.status(), &call.headers()["grpc-status"]),
        (StatusCode::OK, &"14".parse().unwrap())
    );
}

#[tokio::test]
async fn a_kept_connection_that_ends_is_not_seen_by_the_client() {
    // Each connection answers once and ends when it is asked again.
    let at = raw(|mut stream, nth| async move {
        head(&mut stream).await;
        answer(&mut stream, &format!("{nth}")).await;
        head(&mut stream).await;
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    for nth in ["0", "1", "2"] {
        let answer = world.get("/", &[]).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, nth.as_bytes()));
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_asked_for_twice() {
    let at = raw(|mut stream, nth| async move {
        head(&mut stream).await;
        if nth == 0 {
            answer(&mut stream, "once").await;
            head(&mut stream).await;
        } else {
            answer(&mut stream, "twice").await;
        }
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    assert_eq!(world.get("/", &[]).await.status(), StatusCode::OK);
    let refused = world.send(post("pay")).await;
    assert_eq!(
        (refused.status(), &refused.body()[..]),
        (StatusCode::BAD_GATEWAY, &b"the backend broke off\n"[..])
    );
}

#[tokio::test]
async fn a_kept_connection_that_ended_before_is_passed_over_for_any_request() {
    let at = raw(|mut stream, nth| async move {
        head(&mut stream).await;
        answer(&mut stream, &format!("{nth}")).await;
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    for nth in ["0", "1", "2"] {
        // Without a body, so that what the backend reads is all there is.
        let request = Request::post("/").header("host", "a").body(Full::default()).unwrap();
        assert_eq!(&world.send(request).await.body()[..], nth.as_bytes());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_backend_that_never_answers_is_given_up() {
    let at = raw(|mut stream, _| async move {
        head(&mut stream).await;
        sleep(Duration::from_secs(60)).await;
    })
    .await;
    let world = World::new(&policies(&[at]), quick());
    let begun = Instant::now();
    assert_eq!(world.get("/", &[]).await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_no_http_is_a_bad_gateway() {
    for garbage in
        ["hello\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n"]
    {
        let at = raw(move |mut stream, _| async move {
            head(&mut stream).await;
            stream.write_all(garbage.as_bytes()).await.unwrap();
        })
        .await;
        let world = World::new(&policies(&[at]), Options::default());
        assert_eq!(world.get("/", &[]).await.status(), StatusCode::BAD_GATEWAY, "{garbage:?}");
    }
}

#[tokio::test]
async fn endless_headers_of_a_backend_are_cut_off() {
    let at = raw(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
        let mut left = 1600;
        while left > 0 && stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {
            left -= 1;
        }
        assert!(left > 0, "the proxy has read all of it");
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    assert_eq!(world.get("/", &[]).await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_cut_short_for_the_client() {
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let at = raw(move |mut stream, _| async move {
            head(&mut stream).await;
            let part = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nabc");
            stream.write_all(part.as_bytes()).await.unwrap();
        })
        .await;
        let world = World::new(&policies(&[at]), Options::default());
        let answer = world.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_comes_through() {
    let at = raw(|mut stream, _| async move {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        sleep(Duration::from_secs(1)).await;
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    let mut stream = world.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc")
        .await
        .unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn another_protocol_is_carried_both_ways_for_as_long_as_both_want() {
    let at = raw(|mut stream, _| async move {
        let asked = head(&mut stream).await;
        assert!(
            asked.contains("upgrade: echo\r\n") && asked.contains("connection: upgrade\r\n"),
            "{asked}"
        );
        stream
            .write_all(b"HTTP/1.1 101 Now\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi")
            .await
            .unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await;
    let world = World::new(&policies(&[at]), Options::default());
    let mut stream = world.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let changed = head(&mut stream).await;
    assert!(changed.starts_with("HTTP/1.1 101 "), "{changed}");
    assert!(changed.contains("upgrade: echo\r\n"), "{changed}");
    let mut two = [0; 2];
    stream.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"hi");
    for word in [b"one", b"two"] {
        stream.write_all(word).await.unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut two).await.unwrap(), 0);
}

#[tokio::test]
async fn rules_change_between_two_requests_of_one_connection() {
    let saw = Saw::default();
    let (one, two) = (echo("one", &saw).await, echo("two", &saw).await);
    let world = World::new(&policies(&[one]), Options::default());
    let mut stream = world.connect().await;
    for (to, text) in [(one, "one"), (two, "two")] {
        world.publish(&policies(&[to]));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(head(&mut stream).await.contains("200 OK"));
        let mut body = [0; 3];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, text.as_bytes());
    }
    // Without HTTP rules the last ones hold for this connection, which ends.
    world.publish(&dataplane("web", "http", "v1", one));
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("connection: close\r\n") && rest.ends_with("two"), "{rest}");
}

#[tokio::test]
async fn connections_of_a_burst_are_not_kept_for_long() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let at = raw(move |mut stream, _| {
        let open = Arc::clone(&counted);
        async move {
            open.fetch_add(1, Relaxed);
            while !head(&mut stream).await.is_empty() {
                sleep(Duration::from_millis(300)).await;
                answer(&mut stream, "late").await;
            }
            open.fetch_sub(1, Relaxed);
        }
    })
    .await;
    let world = Arc::new(World::new(&policies(&[at]), Options::default()));
    let mut burst = JoinSet::new();
    for _ in 0..16 {
        let world = Arc::clone(&world);
        burst.spawn(async move { world.get("/", &[]).await.status() });
    }
    assert!(burst.join_all().await.iter().all(|status| *status == StatusCode::OK));
    assert_eq!(open.load(Relaxed), 16);
    // Long before the time after which any idle one is closed.
    let fewer = async {
        while open.load(Relaxed) > 8 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), fewer).await.expect("half of them are closed");
}
