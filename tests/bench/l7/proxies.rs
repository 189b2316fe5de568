//! Proxies that people run, each as its documentation has it for this task: as many threads as
//! CPUs, connections to servers kept, no access log, the client's address told to servers.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    bed::{Proxy, SERVER_PORT, SERVERS, VIP, VIP_PORT},
    world::World,
};

/// Servers of the first version.
const FIRST: usize = 3;

pub(crate) fn nginx(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let servers = |servers: &[&str]| -> String {
        servers.iter().map(|address| format!("server {address}:{SERVER_PORT}; ")).collect()
    };
    let (v1, v2) = SERVERS.split_at(FIRST);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {what};\n"))
        .concat();
    let config = format!(
        "worker_processes auto;\ndaemon off;\npid nginx.pid;\nevents {{ worker_connections 32768; \
         }}\nhttp {{\n  access_log off;\n{temporary}  keepalive_requests 1000000000;\n  upstream v1 \
         {{ {}keepalive 64; }}\n  upstream v2 {{ {}keepalive 64; }}\n  split_clients $request_id \
         $version {{ 90% v1; * v2; }}\n  server {{\n    listen {VIP}:{VIP_PORT} backlog=16384;\n    \
         location /api/ {{\n      rewrite ^/api/(.*)$ /new/$1 break;\n      proxy_http_version \
         1.1;\n      proxy_set_header Connection '';\n      proxy_set_header Host $host;\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_set_header \
         X-Forwarded-Proto $scheme;\n      proxy_set_header X-Bench 1;\n      proxy_pass \
         http://$version;\n    }}\n    location / {{ return 404; }}\n  }}\n}}\n",
        servers(v1),
        servers(v2),
    );
    Proxy::start(&world.group, &world.topology.node, (program, home), &config, |command, config| {
        command.args(["-e", "stderr", "-p"]).arg(home).arg("-c").arg(config);
    })
}

pub(crate) fn haproxy(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let backend = |name: &str, servers: &[&str]| -> String {
        let lines: String = (0..)
            .zip(servers)
            .map(|(n, address): (u32, _)| format!("  server s{n} {address}:{SERVER_PORT}\n"))
            .collect();
        format!("backend {name}\n  balance roundrobin\n  http-reuse always\n{lines}")
    };
    let (v1, v2) = SERVERS.split_at(FIRST);
    let config = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client \
         300s\n  timeout server 60s\n  option forwardfor\nfrontend vip\n  bind {VIP}:{VIP_PORT} \
         backlog 16384\n  acl api path_beg /api/\n  http-request return status 404 unless api\n  \
         http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Bench 1\n  \
         http-request replace-path ^/api/(.*) /new/\\1\n  use_backend v2 if {{ rand(100) lt 10 }}\n  \
         default_backend v1\n{}{}",
        backend("v1", v1),
        backend("v2", v2),
    );
    Proxy::start(&world.group, &world.topology.node, (program, home), &config, |command, config| {
        command.args(["-db", "-f"]).arg(config);
    })
}

pub(crate) fn envoy(world: &World, home: &Path, program: &Path) -> Result<Proxy> {
    let address = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let cluster = |name: &str, servers: &[&str]| -> Value {
        let endpoints: Vec<Value> = servers
            .iter()
            .map(|server| json!({"endpoint": {"address": address(server, SERVER_PORT)}}))
            .collect();
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        })
    };
    let (v1, v2) = SERVERS.split_at(FIRST);
    let route = json!({
        "match": {"prefix": "/api/"},
        "request_headers_to_add": [{"header": {"key": "x-bench", "value": "1"}}],
        "route": {
            "prefix_rewrite": "/new/",
            "weighted_clusters": {"clusters": [
                {"name": "v1", "weight": 90},
                {"name": "v2", "weight": 10},
            ]},
        },
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "l7",
        "use_remote_address": true,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let config = json!({"static_resources": {
        "listeners": [{"address": address(VIP, VIP_PORT), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}]}],
        "clusters": [cluster("v1", v1), cluster("v2", v2)],
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
