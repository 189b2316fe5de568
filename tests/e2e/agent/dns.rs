//! A DNS server of the test: A records of a few names, over UDP and TCP, and failures.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use harness::NetNs;

/// Longest answer over UDP; a longer one is cut and asked for again over TCP (RFC 1035, 4.2.1).
const UDP_MAX: usize = 512;

/// What the server knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Zone {
    pub(super) names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// In seconds.
    pub(super) ttl: u32,
    /// It answers SERVFAIL to everything.
    pub(super) failing: bool,
}

/// A server in a namespace; it ends when this is dropped.
pub(super) struct DnsServer {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    pub(super) fn start(ns: &NetNs, at: SocketAddr, zone: Zone) -> Self {
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (udp, tcp) = ns.run(|| {
            (UdpSocket::bind(at).expect("bind UDP"), TcpListener::bind(at).expect("bind TCP"))
        });
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        tcp.set_nonblocking(true).expect("non-blocking");
        let datagrams = {
            let (zone, asked, stop) = (Arc::clone(&zone), Arc::clone(&asked), Arc::clone(&stop));
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                    asked.fetch_add(1, Ordering::Relaxed);
                    let zone = zone.lock().expect("the zone").clone();
                    if let Some(answer) = answer(&zone, &buffer[..length], UDP_MAX) {
                        udp.send_to(&answer, from).expect("send an answer");
                    }
                }
            })
        };
        let streams = {
            let (zone, stop) = (Arc::clone(&zone), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = tcp.accept() else {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    stream.set_nonblocking(false).expect("blocking");
                    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                        if stream.read_exact(&mut question).is_err() {
                            break;
                        }
                        let zone = zone.lock().expect("the zone").clone();
                        let Some(answer) = answer(&zone, &question, usize::from(u16::MAX)) else {
                            break;
                        };
                        let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                        framed.extend(answer);
                        if stream.write_all(&framed).is_err() {
                            break;
                        }
                    }
                }
            })
        };
        Self { zone, asked, stop, threads: vec![datagrams, streams] }
    }

    /// Changes what it knows.
    pub(super) fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().expect("the zone"));
    }

    /// Questions that came over UDP.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !thread::panicking() {
                panic!("a thread of the DNS server panicked");
            }
        }
    }
}

/// The answer to a message with one question, at most `max` bytes long; `None`: no such message.
fn answer(zone: &Zone, question: &[u8], max: usize) -> Option<Vec<u8>> {
    const TYPE_A: u16 = 1;
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let asked = question.get(at..at + 4)?;
    let kind = u16::from_be_bytes([asked[0], asked[1]]);
    let known = zone.names.get(&labels.join("."));
    let code: u8 = match known {
        _ if zone.failing => 2,
        None => 3,
        Some(_) => 0,
    };
    let addresses = known.filter(|_| code == 0 && kind == TYPE_A).cloned().unwrap_or_default();
    let mut message = question.get(..2)?.to_vec();
    // A response, recursion desired and available.
    message.extend([0x81, 0x80 | code]);
    message.extend([0, 1]);
    message.extend((addresses.len() as u16).to_be_bytes());
    message.extend([0; 4]);
    message.extend(question.get(12..at + 4)?);
    for address in &addresses {
        // The name is that of the question, at byte 12.
        message.extend([0xc0, 12, 0, 1, 0, 1]);
        message.extend(zone.ttl.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    if message.len() > max {
        // Cut: ask over TCP.
        message.truncate(at + 4);
        message[2] |= 0x02;
        message[6..8].copy_from_slice(&[0, 0]);
    }
    Some(message)
}
