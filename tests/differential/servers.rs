//! The three proxies, each before a backend of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use balancer_user::{
    policy::{ReadOptions, SourceText, read},
    proxy::{Live, Options, Proxy},
    resolve::{VipKey, resolve},
    settings::Settings,
};

use super::backend::Backend;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) backend: Backend,
    _runs: Runs,
}

/// What ends with the server.
enum Runs {
    Ours(#[expect(dead_code, reason = "its threads end with the process")] Proxy),
    Process(Child),
}

impl Drop for Runs {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // It may have ended by itself.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Our proxy, with a rule that sends every request to the backend.
pub(crate) fn balancer() -> Result<Server> {
    let backend = Backend::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let policies = format!(
        "type: Mesh\nname: default\n---\ntype: TrafficRoute\nmesh: default\nname: web\nsources: \
         [{{match: {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: web}}}}]\n\
         conf:\n  http: [{{match: {{path: {{prefix: /}}}}, destination: {{kuma.io/service: web}}}}]\n  \
         destination: {{kuma.io/service: web}}\n---\ntype: Dataplane\nmesh: default\nname: web\n\
         networking: {{address: 127.0.0.1, inbound: [{{port: {}, tags: {{kuma.io/service: web, \
         kuma.io/protocol: http}}}}]}}\n",
        backend.addr.port()
    );
    let text = SourceText { name: "web.yaml".to_owned(), text: policies.into() };
    let reading = read(vec![text], &ReadOptions::default());
    ensure!(reading.report.valid(), "{:?}", reading.report);
    let settings = Settings::default().resolve_settings(Default::default());
    let mut resolved = resolve(&reading.set, &settings);
    let vip = resolved.vips.iter_mut().find(|vip| vip.destination.to_string() == "web");
    vip.context("no VIP for the service")?.key = VipKey::tcp(addr);
    let live = Live::new(&resolved, &Live::default())?;
    let proxy = Proxy::start(vec![vec![listener]], live, Options::default())?;
    Ok(Server { name: "balancer", addr, backend, _runs: Runs::Ours(proxy) })
}

pub(crate) fn nginx(directory: &Path) -> Result<Server> {
    let (backend, addr) = (Backend::new()?, free()?);
    let at = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {at}/{of};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log;\n\
         events {{}}\nhttp {{\naccess_log off;\n{temporary}\
         upstream backend {{ server {}; keepalive 8; }}\n\
         server {{\nlisten {addr};\nlocation / {{\nproxy_pass http://backend;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\n}}\n}}\n}}\n",
        backend.addr
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(program("nginx")?);
    command.arg("-p").arg(directory).arg("-e").arg(directory.join("nginx.log")).arg("-c").arg(file);
    begin("nginx", command, addr, backend)
}

pub(crate) fn haproxy(directory: &Path) -> Result<Server> {
    let (backend, addr) = (Backend::new()?, free()?);
    let text = format!(
        "global\n  maxconn 100\n\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 10s\n  \
         timeout server 10s\n\nfrontend clients\n  bind {addr}\n  default_backend reals\n\n\
         backend reals\n  server real {}\n",
        backend.addr
    );
    let file = directory.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(program("haproxy")?);
    command.arg("-db").arg("-f").arg(file);
    begin("haproxy", command, addr, backend)
}

/// Debian has both where PATH of an ordinary user does not look.
fn program(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    let found = places.into_iter().map(|place| place.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed; `cargo xtask setup` installs it"))
}

/// An address where nobody listens, and the server soon does.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn begin(
    name: &'static str,
    mut command: Command,
    addr: SocketAddr,
    backend: Backend,
) -> Result<Server> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut runs = Runs::Process(child);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_err() {
        let Runs::Process(child) = &mut runs else { unreachable!("it is a process") };
        if let Some(status) = child.try_wait()? {
            bail!("{name} has ended with {status}: {command:?}");
        }
        ensure!(Instant::now() < until, "{name} does not listen at {addr}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(Server { name, addr, backend, _runs: runs })
}
