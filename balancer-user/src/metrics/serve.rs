//! The server: `/metrics`, `/healthz`, `/readyz`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::Exporter;

/// What a client may take of us.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at once; others wait in the kernel's queue.
    connections: usize,
    /// Until the request is there.
    headers_within: Duration,
    /// Until the answer is taken.
    done_within: Duration,
    /// Until a port that somebody else has is tried again.
    again_after: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 16,
    headers_within: Duration::from_secs(5),
    done_within: Duration::from_secs(30),
    again_after: Duration::from_secs(10),
};

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves pages at `address` until it is dropped, and keeps the exporter up to the live set. A
/// port that cannot be had is logged and tried again: connections must not depend on whether
/// somebody watches them.
pub async fn serve(address: SocketAddr, exporter: Exporter) -> Infallible {
    tokio::select! {
        never = keep_up(&exporter) => never,
        never = listen(address, &exporter, BOUNDS) => never,
    }
}

async fn keep_up(exporter: &Exporter) -> Infallible {
    loop {
        exporter.0.woken.notified().await;
        let catching = exporter.clone();
        match tokio::task::spawn_blocking(move || catching.catch_up()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "metrics: cannot read the counters"),
            Err(error) => warn!(%error, "metrics: reading the counters did not end"),
        }
    }
}

async fn listen(address: SocketAddr, exporter: &Exporter, bounds: Bounds) -> Infallible {
    let mut refused = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut refused, true) {
                    error!(
                        %address, %error,
                        "metrics: cannot listen; everything else goes on, and it is tried again \
                         every {} s. `ss -ltnp` shows who has the port; `metrics:` in the \
                         configuration names another",
                        bounds.again_after.as_secs()
                    );
                }
                sleep(bounds.again_after).await;
            }
        }
    };
    info!(%address, "metrics: listening");
    accept(&listener, exporter, bounds).await
}

async fn accept(listener: &TcpListener, exporter: &Exporter, bounds: Bounds) -> Infallible {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            unreachable!("nobody closes the semaphore")
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let exporter = exporter.clone();
                connections.spawn(async move {
                    let served = connection(stream, exporter, bounds.headers_within);
                    if timeout(bounds.done_within, served).await.is_err() {
                        debug!(%client, "metrics: the client was too slow");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "metrics: cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request: connections are not kept, so that idle clients take no place.
async fn connection(stream: TcpStream, exporter: Exporter, headers_within: Duration) {
    let answer = |request: Request<hyper::body::Incoming>| {
        let exporter = exporter.clone();
        async move { Ok::<_, Infallible>(answer(&request, &exporter).await) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(error) = served.await {
        debug!(%error, "metrics: a request was not served");
    }
}

async fn answer(request: &Request<impl Body>, exporter: &Exporter) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        let text = format!("no such page: {path}\nthere are /metrics, /healthz and /readyz\n");
        return response(StatusCode::NOT_FOUND, PLAIN, text);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = format!("{path} is only read: GET or HEAD\n");
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/healthz" => response(StatusCode::OK, PLAIN, "alive\n".into()),
        "/readyz" => match exporter.health().not_ready {
            None => response(StatusCode::OK, PLAIN, "ready\n".into()),
            Some(why) => {
                response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {why}\n"))
            }
        },
        _ => page(exporter).await,
    }
}

async fn page(exporter: &Exporter) -> Response<Full<Bytes>> {
    let exporter = exporter.clone();
    let failed = |error: &dyn std::fmt::Display| {
        warn!(%error, "metrics: no page");
        response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n"))
    };
    match tokio::task::spawn_blocking(move || exporter.page()).await {
        Ok(Ok(text)) => response(StatusCode::OK, TEXT_FORMAT, text),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
