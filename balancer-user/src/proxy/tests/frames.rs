//! A client of HTTP/2 that writes its frames itself (RFC 9113, 4.1).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::world::World;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET / HTTP/2`, scheme `http`, authority `a`: entries of the static table (RFC 7541, appendix A).
pub(super) const GET: &[u8] = b"\x82\x84\x86\x41\x01a";
/// The same with POST.
pub(super) const POST: &[u8] = b"\x83\x84\x86\x41\x01a";

/// `SETTINGS_INITIAL_WINDOW_SIZE` of 0: no answer has room until its stream is given some.
pub(super) const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];

/// A frame as it is sent.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame as it came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error of RST_STREAM and GOAWAY: the last four bytes, or those behind the last stream.
    pub(super) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(super) struct Http2(pub(super) TcpStream);

impl Http2 {
    /// Connects, with SETTINGS of this payload.
    pub(super) async fn connect(world: &World, settings: &[u8]) -> Self {
        let mut stream = world.connect().await;
        let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        begin.extend(frame(SETTINGS, 0, 0, settings));
        stream.write_all(&begin).await.unwrap();
        Self(stream)
    }

    /// Sends bytes; `false`: the other side has gone.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None`: the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, stream: u32::from_be_bytes([d, e, f, g]), payload })
    }

    /// Reads on until a frame is so; `None`: the connection has ended before.
    pub(super) async fn until(&mut self, is: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if is(&frame) {
                return Some(frame);
            }
        }
    }

    /// The error with which the other side ends the connection; `None`: it ends without a word.
    pub(super) async fn goaway(&mut self) -> Option<u32> {
        Some(self.until(|frame| frame.kind == GOAWAY).await?.error())
    }
}
