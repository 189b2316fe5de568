//! The end of a proxy: what its clients notice of it.

use std::time::{Duration, Instant};

use ::http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::world::{World, backend, dataplane, head, whole};
use crate::proxy::{End, Limits, Options, Taking};

const ROUTE: &str = "
type: TrafficRoute
mesh: default
name: shop
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: web}}]
conf:
  http: [{match: {path: {prefix: /}}, destination: {kuma.io/service: web}}]
  destination: {kuma.io/service: web}
";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const LONG: Duration = Duration::from_secs(60);

/// A backend that takes this long for an answer; connections may be idle for `idle_at_end`.
async fn world(takes: Duration, idle_at_end: Duration) -> World {
    let at = backend(move |_, _| async move {
        sleep(takes).await;
        Response::new(Full::new(Bytes::from_static(b"late")))
    })
    .await;
    let limits = Limits { idle_at_end, ..Limits::default() };
    let policies = format!("{}\n---{ROUTE}", dataplane("web", "http", "v1", at));
    World::new(&policies, Options { limits, ..Options::default() })
}

fn end(taking: Taking) -> End {
    End { within: LONG, taking }
}

/// Reads an answer of which the connection lives on.
async fn kept_answer(stream: &mut TcpStream) {
    stream.write_all(ASK).await.unwrap();
    let head = head(stream).await;
    assert!(!head.contains("connection: close"), "{head}");
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

/// Reads the last answer of a connection, and its end.
async fn last_answer(stream: &mut TcpStream) {
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.contains("connection: close\r\n") && all.ends_with("late"), "{all}");
}

#[tokio::test]
async fn a_request_on_a_kept_connection_is_answered_while_the_proxy_ends() {
    let world = world(Duration::ZERO, LONG).await;
    let (mut kept, mut fresh) = (world.connect().await, world.connect().await);
    kept_answer(&mut kept).await;
    let ending = tokio::spawn(world.stop(end(Taking::OnTheWay)));
    sleep(Duration::from_millis(800)).await;
    for stream in [&mut kept, &mut fresh] {
        stream.write_all(ASK).await.unwrap();
        last_answer(stream).await;
    }
    timeout(Duration::from_secs(5), ending).await.expect("nothing is left").unwrap();
}

#[tokio::test]
async fn connections_on_which_nothing_is_asked_are_closed_after_a_grace() {
    let world = world(Duration::ZERO, Duration::from_secs(1)).await;
    let (mut kept, mut fresh) = (world.connect().await, world.connect().await);
    kept_answer(&mut kept).await;
    let begun = Instant::now();
    world.stop(end(Taking::OnTheWay)).await;
    assert!((900..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    for stream in [&mut kept, &mut fresh] {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_under_way_is_answered_before_the_proxy_ends() {
    let world = world(Duration::from_millis(1200), LONG).await;
    let mut stream = world.connect().await;
    stream.write_all(ASK).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    world.stop(end(Taking::OnTheWay)).await;
    last_answer(&mut stream).await;
}

#[tokio::test]
async fn what_takes_too_long_is_cut() {
    let world = world(LONG, LONG).await;
    let mut stream = world.connect().await;
    stream.write_all(ASK).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    world.stop(End { within: Duration::from_secs(1), taking: Taking::OnTheWay }).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_told_and_ends_at_once() {
    let world = world(Duration::ZERO, LONG).await;
    let io = TokioIo::new(world.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://a/").body(Full::<Bytes>::default()).unwrap();
    whole(sender.send_request(request).await.unwrap()).await;
    let ending = world.stop(end(Taking::OnTheWay));
    timeout(Duration::from_secs(5), ending).await.expect("nothing is left to wait for");
    connection.await.unwrap().expect("GOAWAY is no error");
}

#[tokio::test]
async fn connections_are_taken_while_others_last_where_nobody_else_takes_them() {
    let world = world(Duration::ZERO, Duration::from_secs(3)).await;
    let at = world.at;
    let _idle = world.connect().await;
    sleep(Duration::from_millis(100)).await;
    let ending = tokio::spawn(world.stop(end(Taking::WhileOthersLast)));
    for _ in 0..4 {
        sleep(Duration::from_millis(500)).await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        last_answer(&mut stream).await;
    }
    timeout(Duration::from_secs(5), ending).await.expect("nothing is left").unwrap();
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens any more");
}
