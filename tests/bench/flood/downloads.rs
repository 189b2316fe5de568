//! Connections that last: a real sends without end, a client reads and counts.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use harness::backends::{anywhere, dial};

use crate::world::{REAL_A, VIPS_A, World};

/// Connections to each of the VIPs.
const EACH: usize = 2;
/// Bytes of one write: many segments, so that segmentation offload has work.
const BLOCK: usize = 256 << 10;

/// One connection, seen from the client.
struct Download {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
    ends: (SocketAddr, SocketAddr),
    reader: Option<thread::JoinHandle<()>>,
}

/// All of them; they end when this is dropped.
pub(crate) struct Downloads(Vec<Download>);

impl Downloads {
    /// Serves on the real and begins to download through the VIPs.
    pub(crate) fn start(world: &World) -> Result<Self> {
        for address in REAL_A {
            let address: SocketAddr = address.parse()?;
            let real = &world.topology.host("real-a").ns;
            let listener = real
                .run(|| TcpListener::bind(address))
                .with_context(|| format!("cannot listen on {address}"))?;
            // Ends with the process: it waits for connections that do not come.
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    thread::spawn(move || serve(stream));
                }
            });
        }
        let mut downloads = Vec::new();
        let client = &world.topology.host("client").ns;
        for vip in VIPS_A {
            let vip: SocketAddr = vip.parse()?;
            for _ in 0..EACH {
                downloads.push(Download::start(client.run(|| dial(anywhere(vip), vip))?)?);
            }
        }
        Ok(Self(downloads))
    }

    /// Bytes that each has read so far.
    pub(crate) fn bytes(&self) -> Vec<u64> {
        self.0.iter().map(|download| download.bytes.load(Ordering::Relaxed)).collect()
    }

    /// Client and VIP of each.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.0.iter().map(|download| download.ends)
    }
}

impl Download {
    fn start(stream: TcpStream) -> Result<Self> {
        let bytes = Arc::new(AtomicU64::new(0));
        let ends = (stream.local_addr()?, stream.peer_addr()?);
        let (mut read, count) = (stream.try_clone()?, Arc::clone(&bytes));
        let reader = thread::spawn(move || {
            let mut block = vec![0; BLOCK];
            // Whoever looks at the bytes sees that no more come.
            while let Ok(n @ 1..) = read.read(&mut block) {
                count.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { stream, bytes, ends, reader: Some(reader) })
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // One that is over already cannot be shut down.
        let _over = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            eprintln!("warning: the reader of {:?} had panicked", self.ends);
        }
    }
}

fn serve(mut stream: TcpStream) {
    let block = vec![0; BLOCK];
    // Until the client has gone.
    while stream.write_all(&block).is_ok() {}
}
