//! QUIC through a Service of UDP: Debian's ngtcp2, client and server.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Instance, Topology, patience, root_or_skip};

use crate::bed::Bed;

const MISSING: &str = "ngtcp2, which `cargo xtask setup` installs";
const VIPS: [&str; 2] = ["10.99.0.44", "fd99::44"];
/// Bytes of the file: many flights of packets.
const LENGTH: usize = 2_000_000;

/// A Service at both VIPs with an endpoint on each of these reals.
fn web(v4: &[&str], v6: &[&str]) -> String {
    let slice = |family: &str, addresses: &[&str]| {
        let list: Vec<String> =
            addresses.iter().map(|address| format!("{{addresses: ['{address}']}}")).collect();
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{}, \
             namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\n\
             ports: [{{name: quic, port: 1443, protocol: UDP}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            list.join(", ")
        )
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{clusterIPs: \
         ['{}', '{}'], ports: [{{name: quic, port: 443, protocol: UDP}}]}}\n{}{}",
        VIPS[0],
        VIPS[1],
        slice("IPv4", v4),
        slice("IPv6", v6)
    )
}

/// A key, a certificate, and the file that is served.
fn prepare(folder: &Path) -> Vec<u8> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args([
            "-nodes", "-days", "2", "-subj", "/CN=web", "-keyout", "key.pem", "-out", "cert.pem",
        ])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status()
        .expect("openssl, which `cargo xtask setup` installs");
    assert!(made.success(), "openssl made no certificate");
    let mut word = 1u32;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (word >> 24) as u8
    })
    .take(LENGTH)
    .collect();
    fs::create_dir(folder.join("www")).expect("a directory");
    fs::write(folder.join("www/file"), &content).expect("a file");
    content
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn servers(topology: &Topology, folder: &Path) -> Vec<Running> {
    let mut servers = Vec::new();
    for real in ["a", "b"] {
        let host = topology.host(real);
        for address in &host.addresses {
            let mut server = host.ns.command("/usr/sbin/gtlsserver");
            server.args(["--quiet", "-d", "www", &address.to_string(), "1443"]);
            server.args(["key.pem", "cert.pem"]).current_dir(folder);
            server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers.push(Running(server.spawn().expect(MISSING)));
        }
    }
    servers
}

/// Begins to fetch the file; `more` are options of the client.
fn fetch(bed: &Bed, folder: &Path, vip: &str, to: &str, more: &[&str]) -> Running {
    fs::create_dir_all(folder.join(to)).expect("a directory");
    let mut client = bed.topology.host("web-1").ns.command("gtlsclient");
    client.args(["--quiet", "--exit-on-all-streams-close", "--download", to]).args(more);
    client.args([vip, "443", "https://web/file"]).current_dir(folder);
    client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(client.spawn().expect(MISSING))
}

/// Waits for a client; whether it has the whole file.
fn has(folder: &Path, to: &str, mut client: Running, content: &[u8]) -> bool {
    let begun = Instant::now();
    while client.0.try_wait().expect("a child").is_none() {
        if begun.elapsed() > patience(Duration::from_secs(40)) {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    fs::read(folder.join(to).join("file")).is_ok_and(|found| found == content)
}

/// Servers bind at their own time: the first client may come too early.
fn first(bed: &Bed, folder: &Path, vip: &str, content: &[u8]) {
    let tries = (0..5).any(|number| {
        let to = format!("first-{number}-{}", vip.replace(':', "-"));
        has(folder, &to, fetch(bed, folder, vip, &to, &["--timeout=5s"]), content)
    });
    assert!(tries, "no client reaches {vip}");
}

fn load(bed: &Bed, instance: &Instance<'_>, v4: &[&str], v6: &[&str]) {
    bed.load(instance, &web(v4, v6));
}

#[test]
fn quic_fetches_a_file_whole_over_both_families_and_across_a_change_of_endpoints() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let (folder, instance) = (tempfile::tempdir().expect("a directory"), bed.instance());
    let folder = folder.path();
    let content = prepare(folder);
    let _servers = servers(&bed.topology, folder);
    let both = (["10.71.2.10", "10.71.2.11"], ["fd71:2::10", "fd71:2::11"]);
    load(&bed, &instance, &both.0, &both.1);
    for vip in VIPS {
        first(&bed, folder, vip, &content);
    }
    let clients: Vec<_> = VIPS
        .iter()
        .flat_map(|vip| {
            (0..4).map(move |number| (*vip, format!("{number}-{}", vip.replace(':', "-"))))
        })
        .map(|(vip, to)| (fetch(&bed, folder, vip, &to, &[]), to))
        .collect();
    for (client, to) in clients {
        assert!(has(folder, &to, client, &content), "{to} has not all of the file");
    }
    // They ask for the file after the change: by then the table knows only the second real.
    let waiting: Vec<_> = (0..4)
        .map(|number| format!("late-{number}"))
        .map(|to| (fetch(&bed, folder, VIPS[0], &to, &["--delay-stream=3s"]), to))
        .collect();
    thread::sleep(Duration::from_millis(500));
    load(&bed, &instance, &both.0[1..], &both.1[1..]);
    for (client, to) in waiting {
        assert!(has(folder, &to, client, &content), "{to} has not all of the file");
    }
    let shown = instance.json(&["show", "counters"]).expect("counters");
    let rows = shown.as_array().expect("a list");
    let connections = |vip: &str| {
        let of = rows.iter().filter(|row| row["vip"] == *vip);
        of.map(|row| row["connections"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    for vip in ["10.99.0.44:443/udp", "[fd99::44]:443/udp"] {
        assert!(connections(vip) >= 5, "{vip}: {rows:?}");
    }
}
