//! A proxy with its rules, backends that are real servers on loopback, and clients.

use std::{
    convert::Infallible,
    future::Future,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use ::http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    proxy::{Counted, End, Live, Options, Proxy},
    resolve::{
        VipKey, resolve,
        tests::world::{documents, settings},
    },
};

/// A request as a backend saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) head: ::http::request::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<::http::HeaderMap>,
    /// Whose port it came from: one for each connection.
    pub(super) from: SocketAddr,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// All that backends saw, in the order of their answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Saw(Arc<Mutex<Vec<Seen>>>);

impl Saw {
    pub(super) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.all().pop().expect("a request came")
    }
}

/// A backend that answers every request with its name.
pub(super) async fn echo(name: &'static str, saw: &Saw) -> SocketAddr {
    let saw = saw.clone();
    backend(move |request, from| {
        let saw = saw.clone();
        async move {
            let (head, body) = request.into_parts();
            // One that breaks off is no request.
            let Ok(body) = body.collect().await else { return Response::new(Full::default()) };
            let trailers = body.trailers().cloned();
            saw.0.lock().unwrap().push(Seen { head, body: body.to_bytes(), trailers, from });
            Response::new(Full::new(Bytes::from_static(name.as_bytes())))
        }
    })
    .await
}

/// A backend of HTTP/1.1 and HTTP/2.
pub(super) async fn backend<F, A, B>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>, SocketAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request, from);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ended =
                    server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    addr
}

/// A backend that speaks bytes: what it does with each connection.
pub(super) async fn raw<F, A>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for nth in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, nth));
        }
    });
    addr
}

/// Reads the head of a request or answer, byte by byte.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A Dataplane of a service at an address.
pub(super) fn dataplane(service: &str, protocol: &str, version: &str, at: SocketAddr) -> String {
    let name = format!("{service}-{}", at.port());
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: {}\n  inbound: \
         [{{port: {}, tags: {{kuma.io/service: {service}, kuma.io/protocol: {protocol}, version: \
         {version}}}}}]\n---\n",
        at.ip(),
        at.port()
    )
}

/// A proxy and the address by which clients reach the service `web`.
pub(super) struct World {
    proxy: Option<Proxy>,
    pub(super) at: SocketAddr,
}

impl World {
    /// `policies`: documents, and what `web` is.
    pub(super) fn new(policies: &str, options: Options) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let proxy = Proxy::start(vec![vec![listener]], Live::default(), options).unwrap();
        let world = Self { proxy: Some(proxy), at };
        world.publish(policies);
        world
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it runs")
    }

    /// Makes other policies the live ones.
    pub(super) fn publish(&self, policies: &str) {
        let set = documents(policies);
        let mut resolved = resolve(&set, &settings());
        let vip = resolved.vips.iter_mut().find(|vip| vip.destination.to_string() == "web");
        if let Some(vip) = vip {
            vip.key = VipKey::tcp(self.at);
        }
        self.proxy().publish(Live::new(&resolved, &self.proxy().live()).unwrap());
    }

    /// What the proxy has counted.
    pub(super) fn counted(&self) -> Counted {
        self.proxy().counters().read()
    }

    /// Waits until it has counted so.
    pub(super) async fn until(&self, is: impl Fn(&Counted) -> bool) {
        let waits = async {
            while !is(&self.counted()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Duration::from_secs(20), waits).await.is_err() {
            panic!("it is not so: {:?}", self.counted());
        }
    }

    /// Waits until the proxy has nothing under way: no client, no request, no real that has one.
    pub(super) async fn is_at_rest(&self) {
        // What is shown may be of before.
        sleep(Duration::from_millis(300)).await;
        let busy = |counted: &Counted| counted.connections + counted.requests + counted.reals_used;
        self.until(|counted| busy(counted) == 0).await;
    }

    pub(super) async fn stop(mut self, end: End) {
        let proxy = self.proxy.take().unwrap();
        tokio::task::spawn_blocking(move || proxy.stop(end)).await.unwrap();
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// Sends bytes and reads until the connection ends.
    pub(super) async fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_end = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request over a connection of its own, in HTTP/1.1.
    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::get(path).header("host", "web.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        whole(sender.send_request(request).await.unwrap()).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop(End::default());
        }
    }
}

pub(super) async fn whole(answer: Response<Incoming>) -> Response<Bytes> {
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}
