//! What backends and clients see of an ordinary request.

use ::http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::world::{Saw, World, dataplane, echo, whole};
use crate::proxy::Options;

/// A TrafficRoute: what is below /api goes to v2, with changes; the rest to v1.
const ROUTE: &str = "
type: TrafficRoute
mesh: default
name: shop
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: web}}]
conf:
  http:
  - match: {path: {prefix: /api}}
    modify:
      path: {rewritePrefix: /v2}
      requestHeaders: {add: [{name: x-route, value: api}], remove: [{name: x-debug}]}
      responseHeaders: {add: [{name: cache-control, value: no-store}]}
    destination: {kuma.io/service: web, version: v2}
  destination: {kuma.io/service: web, version: v1}
---
";

async fn world(protocol: &str) -> (World, Saw) {
    let saw = Saw::default();
    let mut text = ROUTE.to_owned();
    for (name, version) in [("one", "v1"), ("two", "v2")] {
        text += &dataplane("web", protocol, version, echo(name, &saw).await);
    }
    (World::new(&text, Options::default()), saw)
}

#[tokio::test]
async fn a_request_goes_where_its_rule_says_and_is_changed_as_it_says() {
    let (world, saw) = world("http").await;
    let answer =
        world.get("/api/7?q=1", &[("x-debug", "1"), ("x-own", "2"), ("connection", "x-own")]).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"two"[..]));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let seen = saw.last();
    assert_eq!(seen.head.uri, "/v2/7?q=1");
    assert_eq!(seen.header("x-route"), Some("api"));
    assert_eq!(seen.header("host"), Some("web.test"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    for gone in ["x-debug", "x-own", "connection"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    let answer = world.get("/", &[]).await;
    assert_eq!(&answer.body()[..], b"one");
    assert_eq!(answer.headers().get("cache-control"), None);
}

#[tokio::test]
async fn connections_to_a_backend_are_used_again() {
    let (world, saw) = world("http").await;
    for _ in 0..20 {
        world.get("/api", &[]).await;
    }
    let ports: std::collections::HashSet<u16> =
        saw.all().iter().map(|seen| seen.from.port()).collect();
    assert_eq!((saw.all().len(), ports.len()), (20, 1));
}

#[tokio::test]
async fn a_body_goes_through_in_pieces_and_with_its_trailers() {
    let (world, saw) = world("http").await;
    let answer = world
        .raw(
            "POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\nte: \
             trailers\r\ntrailer: x-sum\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("one"), "{answer}");
    let seen = saw.last();
    assert_eq!((&seen.body[..], seen.header("te")), (&b"abcdefg"[..], Some("trailers")));
    assert_eq!(seen.trailers.unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn http2_is_spoken_with_clients_and_backends_that_speak_it() {
    for (protocol, version) in [("http", Version::HTTP_11), ("http2", Version::HTTP_2)] {
        let (world, saw) = world(protocol).await;
        let io = TokioIo::new(world.connect().await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let request = Request::post("http://web.test/api/x?y")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(Full::new(Bytes::from_static(b"body")))
                .unwrap();
            let answer = whole(sender.send_request(request).await.unwrap()).await;
            assert_eq!(answer.version(), Version::HTTP_2);
            assert_eq!(&answer.body()[..], b"two");
        }
        let seen = saw.last();
        assert_eq!((seen.head.version, &seen.body[..]), (version, &b"body"[..]));
        assert_eq!(seen.head.uri.path_and_query().unwrap(), "/v2/x?y");
        let host = seen.head.uri.authority().map(|authority| authority.as_str().to_owned());
        let host = host.or(seen.header("host").map(str::to_owned));
        assert_eq!(host.as_deref(), Some("web.test"));
        let ports: std::collections::HashSet<u16> =
            saw.all().iter().map(|seen| seen.from.port()).collect();
        assert_eq!(ports.len(), 1);
    }
}

#[tokio::test]
async fn head_and_no_content_have_no_body_and_keep_the_connection() {
    let (world, _saw) = world("http").await;
    let io = TokioIo::new(world.connect().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let head = Request::head("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(head).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "3");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 0);
        sender.ready().await.unwrap();
    }
}
