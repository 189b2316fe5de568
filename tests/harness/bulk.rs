//! Much data through one connection, both ways, hashed at both ends.
//!
//! The client sends eight bytes (how much will follow, big-endian), then that much; the server
//! answers with the hash of what it got (eight bytes), then sends as much of its own and the
//! hash of it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};
use xxhash_rust::xxh3::Xxh3;

use crate::{backends::dial, netns::NetNs};

/// Bytes written at once: many segments, so that segmentation offload has work.
const BLOCK: usize = 1 << 20;

/// Serves one connection on `address` in `ns`; the thread ends after it.
pub fn serve_once(ns: &NetNs, address: SocketAddr) -> Result<thread::JoinHandle<Result<()>>> {
    let listener = ns
        .run(|| TcpListener::bind(address))
        .with_context(|| format!("cannot listen on {address} in {}", ns.name()))?;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        let hash = receive(&mut stream, length)?;
        stream.write_all(&hash.to_be_bytes())?;
        let hash = send(&mut stream, length, b'S')?;
        stream.write_all(&hash.to_be_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        Ok(())
    }))
}

/// Sends `length` bytes to `to` from the calling thread's namespace and gets as many back;
/// fails unless both ends saw the same bytes.
pub fn exchange(from: SocketAddr, to: SocketAddr, length: u64) -> Result<()> {
    let mut stream = dial(from, to)?;
    stream.write_all(&length.to_be_bytes())?;
    let sent = send(&mut stream, length, b'C').context("cannot send")?;
    ensure!(sent == number(&mut stream)?, "the real got other bytes than the client sent");
    let received = receive(&mut stream, length).context("cannot receive")?;
    ensure!(received == number(&mut stream)?, "the client got other bytes than the real sent");
    Ok(())
}

fn number(stream: &mut TcpStream) -> Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// Sends bytes that differ everywhere, so that nothing lost, doubled or swapped goes unseen.
fn send(stream: &mut TcpStream, length: u64, seed: u8) -> Result<u64> {
    let mut state = u64::from(seed);
    let mut block: Vec<u8> = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        // Xorshift: any sequence with a long period will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    let mut hash = Xxh3::new();
    let mut left = length;
    while left > 0 {
        block[..8].copy_from_slice(&left.to_be_bytes());
        let part = &block[..BLOCK.min(left.try_into().unwrap_or(BLOCK))];
        hash.update(part);
        stream.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(hash.digest())
}

fn receive(stream: &mut TcpStream, length: u64) -> Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let mut hash = Xxh3::new();
    let mut left = length;
    while left > 0 {
        let room = BLOCK.min(left.try_into().unwrap_or(BLOCK));
        let n = stream.read(&mut buffer[..room])?;
        ensure!(n > 0, "the connection ended {left} bytes early");
        hash.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(hash.digest())
}
