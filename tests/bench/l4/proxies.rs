//! Proxies in user space, each as it comes but for what it has to be told.

use std::path::Path;

use anyhow::Result;

use crate::{
    bed::{Proxy, SERVER_PORT, SERVERS, VIP, VIP_PORT},
    world::World,
};

/// Where Debian's package of nginx's stream module puts it.
pub(crate) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(crate) fn haproxy(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let servers: String = SERVERS
        .iter()
        .enumerate()
        .map(|(n, address)| format!("  server server-{n} {address}:{SERVER_PORT}\n"))
        .collect();
    let config = format!(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client \
         60s\n  timeout server 60s\nfrontend vip\n  bind {VIP}:{VIP_PORT}\n  default_backend \
         servers\nbackend servers\n  balance roundrobin\n{servers}"
    );
    Proxy::start(&world.group, &world.topology.node, (program, home), &config, |command, config| {
        command.args(["-db", "-f"]).arg(config);
    })
}

pub(crate) fn nginx(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let servers: String =
        SERVERS.iter().map(|address| format!("server {address}:{SERVER_PORT}; ")).collect();
    let home_is = home.display();
    let config = format!(
        "load_module {NGINX_STREAM};\nworker_processes auto;\ndaemon off;\npid \
         {home_is}/nginx.pid;\nevents {{ worker_connections 4096; }}\nstream {{\n  upstream \
         servers {{ {servers}}}\n  server {{ listen {VIP}:{VIP_PORT}; proxy_pass servers; }}\n}}\n"
    );
    Proxy::start(&world.group, &world.topology.node, (program, home), &config, |command, config| {
        command.args(["-e", "stderr", "-p"]).arg(home).arg("-c").arg(config);
    })
}

pub(crate) fn envoy(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let address = |address: &str, port: u16| serde_json::json!({"socket_address": {"address": address, "port_value": port}});
    let endpoints: Vec<_> = SERVERS
        .iter()
        .map(|server| serde_json::json!({"endpoint": {"address": address(server, SERVER_PORT)}}))
        .collect();
    let config = serde_json::json!({"static_resources": {
        "listeners": [{"address": address(VIP, VIP_PORT), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "l4",
                "cluster": "servers",
            },
        }]}]}],
        "clusters": [{
            "name": "servers",
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "servers", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }});
    // Envoy reads JSON from a file whose name ends so.
    Proxy::start(
        &world.group,
        &world.topology.node,
        (program, home),
        &config.to_string(),
        |command, config| {
            command.args(["--disable-hot-restart", "--log-level", "error", "--config-path"]);
            command.arg(config);
        },
    )
}
