//! Clients of HTTP/2 that send more than anybody has use for, or take less than they asked for.

use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    frames::*,
    hostile::{limits, world},
    world::World,
};
use crate::proxy::{Cause, Limits, Options};

/// More than any test here takes on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends the same again and again, reading nothing, until the proxy reads no more of it or ends the
/// connection. Gives the bytes that went.
pub(super) async fn poured(stream: &mut TcpStream, again: &[u8], most: usize) -> usize {
    let mut went = 0;
    while went < most {
        let next = &again[went % again.len()..];
        match timeout(Duration::from_secs(1), stream.write(next)).await {
            Ok(Ok(written)) => went += written,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    went
}

/// The connection has ended with an error, for that cause, and nothing of it is left.
async fn is_ended(world: &World, mut client: Http2, error: u32, cause: Cause) {
    let told = timeout(PATIENCE, client.goaway()).await.expect("it ends");
    assert_eq!(told, Some(error));
    world.until(|counted| counted.of(cause) == 1).await;
    drop(client);
    world.is_at_rest().await;
    assert_eq!(world.get("/", &[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_the_connection() {
    let (world, saw) = world(Options::default()).await;
    let mut client = Http2::connect(&world, &[]).await;
    let mut flood = Vec::new();
    for stream in (1..20_001).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    // It ends before all of it is read.
    let _cut = client.send(&flood).await;
    is_ended(&world, client, ENHANCE_YOUR_CALM, Cause::Flood).await;
    assert!(saw.all().len() < 1000, "{} requests were sent on", saw.all().len());
}

#[tokio::test]
async fn a_head_that_goes_on_and_on_ends_the_connection() {
    let (world, saw) = world(Options::default()).await;
    for piece in [&b""[..], b"\x00\x01x\x01y"] {
        let mut client = Http2::connect(&world, &[]).await;
        assert!(client.send(&frame(HEADERS, END_STREAM, 1, GET)).await);
        let begun = Instant::now();
        let went = poured(&mut client.0, &frame(CONTINUATION, 0, 1, piece), 64 << 20).await;
        assert!(went < 32 << 20, "{went} bytes were read");
        assert!(begun.elapsed() < PATIENCE);
        let told = timeout(PATIENCE, client.goaway()).await.expect("it ends");
        assert!(matches!(told, Some(ENHANCE_YOUR_CALM) | None), "{told:?}");
    }
    world.until(|counted| counted.of(Cause::Flood) == 2).await;
    assert!(saw.all().is_empty());
}

#[tokio::test]
async fn a_body_of_empty_frames_ends_the_connection() {
    let (world, saw) = world(Options::default()).await;
    let mut client = Http2::connect(&world, &[]).await;
    assert!(client.send(&frame(HEADERS, END_HEADERS, 1, POST)).await);
    let _cut = client.send(&frame(DATA, 0, 1, b"").repeat(10_000)).await;
    is_ended(&world, client, ENHANCE_YOUR_CALM, Cause::Flood).await;
    assert_eq!(saw.all().iter().filter(|seen| seen.head.method == "POST").count(), 0);
}

#[tokio::test]
async fn frames_that_are_forbidden_end_the_connection() {
    let (world, _) = world(Options::default()).await;
    let mut client = Http2::connect(&world, &[]).await;
    assert!(client.send(&frame(DATA, 0, 0, b"x")).await);
    is_ended(&world, client, PROTOCOL_ERROR, Cause::Frames).await;
}

#[tokio::test]
async fn who_floods_with_what_has_to_be_answered_and_reads_nothing_is_not_read() {
    let quick = Limits { idle: Duration::from_secs(2), ..Limits::default() };
    let (world, _) = world(limits(quick)).await;
    let mut clients = Vec::new();
    for again in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, NO_WINDOW)] {
        let mut client = Http2::connect(&world, &[]).await;
        let again = again.repeat(1000);
        let most = 256 << 20;
        let pouring = poured(&mut client.0, &again, most);
        // Meanwhile others are served.
        let (went, answer) = tokio::join!(pouring, timeout(PATIENCE, world.get("/", &[])));
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        assert!(went < most, "{went} bytes were read");
        clients.push(client);
    }
    // Without a request they are idle, whatever else they send.
    world.until(|counted| counted.of(Cause::Idle) == 2).await;
    world.is_at_rest().await;
}

#[tokio::test]
async fn a_small_head_that_means_a_large_one_is_refused() {
    let (world, saw) = world(Options::default()).await;
    let io = TokioIo::new(world.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |value: &HeaderValue, times: usize| {
        let mut request = Request::get("http://a/").body(Full::<Bytes>::default()).unwrap();
        for _ in 0..times {
            request.headers_mut().append("x", value.clone());
        }
        let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("an answer");
        answer.ok().map(|answer| answer.status())
    };
    let too_large = Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let small = HeaderValue::from_static("1");
    assert_eq!(ask(&small, 101).await, too_large);
    // An entry of the table, and a byte for each time more.
    let large = HeaderValue::from_str(&"y".repeat(3000)).unwrap();
    assert_eq!(ask(&large, 25).await, too_large);
    assert_eq!(ask(&small, 90).await, Some(StatusCode::OK));
    assert_eq!(ask(&large, 3000).await, None);
    assert_eq!(saw.all().len(), 1);
    // Of the second one nobody but the library knows.
    world.until(|counted| counted.of(Cause::HeadSize) == 1).await;
    world.until(|counted| counted.of(Cause::Flood) == 1).await;
}

#[tokio::test]
async fn a_stream_whose_window_is_never_opened_ends_while_others_go_on() {
    let quick = Limits { stalled: Duration::from_millis(500), ..Limits::default() };
    let (world, _) = world(limits(quick)).await;
    let mut client = Http2::connect(&world, NO_WINDOW).await;
    assert!(client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await);
    let begun = Instant::now();
    let reset = async {
        for stream in (3..).step_by(2) {
            let mut asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
            asked.extend(frame(WINDOW_UPDATE, 0, stream, &1000u32.to_be_bytes()));
            assert!(client.send(&asked).await);
            let next = client
                .until(|frame| {
                    frame.kind == RST_STREAM || (frame.kind == DATA && frame.stream == stream)
                })
                .await
                .expect("the connection goes on");
            if next.kind == RST_STREAM {
                return next;
            }
            assert_eq!(next.payload, b"seen");
            sleep(Duration::from_millis(100)).await;
        }
        unreachable!("streams have no end")
    };
    let reset = timeout(PATIENCE, reset).await.expect("it ends");
    assert_eq!((reset.stream, reset.error()), (1, CANCEL));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    world.until(|counted| counted.of(Cause::Stalled) == 1).await;
    drop(client);
    world.is_at_rest().await;
}

#[tokio::test]
async fn a_body_that_stands_still_ends_its_stream_and_one_that_moves_does_not() {
    let quick = Limits { stalled: Duration::from_secs(1), ..Limits::default() };
    let (world, saw) = world(limits(quick)).await;
    let mut client = Http2::connect(&world, &[]).await;
    for stream in [1, 3] {
        assert!(client.send(&frame(HEADERS, END_HEADERS, stream, POST)).await);
    }
    // The second one has a byte every now and then, for longer than one may stand still.
    for _ in 0..8 {
        assert!(client.send(&frame(DATA, 0, 3, b"y")).await);
        sleep(Duration::from_millis(250)).await;
    }
    assert!(client.send(&frame(DATA, END_STREAM, 3, b"z")).await);
    let answered = client.until(|frame| frame.kind == DATA && frame.stream == 3);
    assert_eq!(timeout(PATIENCE, answered).await.unwrap().unwrap().payload, b"seen");
    assert_eq!(saw.last().body, "yyyyyyyyz");
    world.until(|counted| counted.of(Cause::TooLate) == 1).await;
    drop(client);
    world.is_at_rest().await;
}
