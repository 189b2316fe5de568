use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
};

use super::*;
use crate::metrics::{BACKENDS_MAX, Health};

const MS: Duration = Duration::from_millis(1);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn exporter(not_ready: Option<String>) -> Exporter {
    let health = move || Health { not_ready: not_ready.clone(), ..Health::default() };
    Exporter::new(BACKENDS_MAX, health).unwrap()
}

/// Serves while `clients` run, with an address for them.
fn served<T>(
    bounds: Bounds,
    not_ready: Option<String>,
    clients: impl AsyncFnOnce(SocketAddr) -> T,
) -> T {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exporter = exporter(not_ready);
        tokio::select! {
            never = accept(&listener, &exporter, bounds) => match never {},
            outcome = timeout(MS * 10_000, clients(address)) => outcome.unwrap(),
        }
    })
}

/// Sends a request and returns all of the answer.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn page_is_served_in_the_text_format() {
    served(BOUNDS, None, async |address| {
        let answer = ask(address, "GET", "/metrics?x=1").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(answer.contains("\nbalancer_set_valid 1\n"), "{answer}");
        let head = ask(address, "HEAD", "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    });
}

#[test]
fn other_paths_and_methods_are_refused() {
    served(BOUNDS, None, async |address| {
        let answer = ask(address, "GET", "/metric").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(answer.ends_with("there are /metrics, /healthz and /readyz\n"), "{answer}");
        let answer = ask(address, "POST", "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    });
}

#[test]
fn readiness_is_what_the_agent_says() {
    served(BOUNDS, Some("no set is live".into()), async |address| {
        assert!(ask(address, "GET", "/healthz").await.ends_with("\r\n\r\nalive\n"));
        let answer = ask(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("not ready: no set is live\n"), "{answer}");
    });
    served(BOUNDS, None, async |address| {
        assert!(ask(address, "GET", "/readyz").await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn clients_that_send_nothing_do_not_keep_others_out() {
    let bounds = Bounds { connections: 2, headers_within: MS * 200, ..BOUNDS };
    served(bounds, None, async |address| {
        let begun = std::time::Instant::now();
        let mut idle = Vec::new();
        for _ in 0..2 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(begun.elapsed() >= MS * 200, "a third was served at once");
    });
}

#[test]
fn clients_that_take_no_answer_are_cut_off() {
    let bounds = Bounds { connections: 1, done_within: MS * 200, ..BOUNDS };
    // More than socket buffers hold.
    let why = "x".repeat(16 << 20);
    served(bounds, Some(why), async |address| {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(ask(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200 "));
        let mut taken = Vec::new();
        // Cut off: the end comes too early, or as a reset.
        let _ = slow.read_to_end(&mut taken).await;
        assert!(taken.len() < 16 << 20, "{}", taken.len());
    });
}

#[test]
fn port_in_use_is_tried_again() {
    runtime().block_on(async {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let exporter = exporter(None);
        let bounds = Bounds { again_after: MS * 20, ..BOUNDS };
        tokio::select! {
            never = listen(address, &exporter, bounds) => match never {},
            served = timeout(MS * 10_000, async {
                sleep(MS * 100).await;
                drop(other);
                while TcpStream::connect(address).await.is_err() {
                    sleep(MS * 5).await;
                }
                assert!(ask(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200 "));
            }) => served.unwrap(),
        }
    });
}
