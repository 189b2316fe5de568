//! A backend that takes nothing but strict HTTP/1.1 and writes down what it gets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::Result;

/// What marks answers that come from here.
pub(crate) const MARK: &str = "x-from: backend";

/// What a line of [`Backend::seen`] begins with where what came is no HTTP.
pub(crate) const BROKEN: &str = "BROKEN";

pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    pub(crate) fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (addr, seen) = (listener.local_addr()?, Arc::default());
        let told = Arc::clone(&seen);
        // As long as the process; connections end with their clients.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                thread::spawn(move || serve(stream, &told));
            }
        });
        Ok(Self { addr, seen })
    }

    /// The requests since the last call, a line each.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("nobody panics with it"))
    }
}

/// Until the other side ends, or what it sends is no HTTP.
fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut buffer = Vec::new();
    loop {
        let answer = match request(&buffer) {
            Ok(None) => {
                let mut more = [0; 1 << 16];
                match stream.read(&mut more) {
                    Ok(1..) if buffer.len() > 1 << 22 => return,
                    Ok(read @ 1..) => buffer.extend_from_slice(&more[..read]),
                    Ok(0) | Err(_) => return,
                }
                continue;
            }
            Ok(Some((line, length))) => {
                buffer.drain(..length);
                let body = if line.starts_with("HEAD ") { "" } else { "ok" };
                let answer =
                    format!("HTTP/1.1 200 OK\r\n{MARK}\r\ncontent-length: 2\r\n\r\n{body}");
                seen.lock().expect("nobody panics with it").push(line);
                answer
            }
            Err(why) => {
                let line = format!("{BROKEN} {why}: {}", shown(&buffer));
                return seen.lock().expect("nobody panics with it").push(line);
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn position(bytes: &[u8], of: &[u8]) -> Option<usize> {
    bytes.windows(of.len()).position(|window| window == of)
}

/// The bytes up to the next line end, and what is behind it; `None`: it is not there yet.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    position(bytes, b"\r\n").map(|end| (&bytes[..end], &bytes[end + 2..]))
}

type Broken = &'static str;

/// Name and value.
type Field<'b> = (&'b [u8], &'b [u8]);

/// The first request of some bytes in words, and its length; `None`: it is not complete.
fn request(bytes: &[u8]) -> Result<Option<(String, usize)>, Broken> {
    let Some(head) = position(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (first, fields) = line(&bytes[..head + 2]).ok_or("no line")?;
    let first: Vec<_> = plain(first)?.split(|byte| *byte == b' ').collect();
    let [method, target, version] = first[..] else {
        return Err("a request line that has not three parts");
    };
    let old = version == b"HTTP/1.0";
    if !is_token(method) || target.is_empty() || !(old || version == b"HTTP/1.1") {
        return Err("a request line that is none");
    }
    let fields = headers(fields)?;
    let of = |name: &str| -> Vec<&[u8]> {
        let values = fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        values.map(|(_, value)| *value).collect()
    };
    let host = match of("host")[..] {
        [host] => host,
        [] if old => b"(none)",
        _ => return Err("not one host"),
    };
    let rest = &bytes[head + 4..];
    let body = match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) => {
            let length = number(length, 10)?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => chunks(rest)?,
        _ => return Err("a length that is ambiguous"),
    };
    let Some((body, length)) = body else { return Ok(None) };
    let mut seen = format!("{} {} host={}", method.escape_ascii(), shown(target), shown(host));
    for (name, value) in &fields {
        // What cases are about, and no proxy adds.
        let name = name.to_ascii_lowercase();
        if name.starts_with(b"x") && !name.starts_with(b"x-forwarded") {
            seen += &format!(" {}={}", shown(&name), shown(value));
        }
    }
    seen += &format!(" body={}", shown(&body));
    Ok(Some((seen, head + 4 + length)))
}

/// Fields, each with its line end.
fn headers(mut bytes: &[u8]) -> Result<Vec<Field<'_>>, Broken> {
    let mut fields = Vec::new();
    while let Some((field, rest)) = line(bytes) {
        let colon = position(plain(field)?, b":").ok_or("a field without a colon")?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        if !is_token(name) {
            return Err("a field whose name is none");
        }
        fields.push((name, value.trim_ascii()));
        bytes = rest;
    }
    Ok(fields)
}

/// A body in chunks, and the length of it as it came; `None`: it is not complete.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Broken> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let Some((size, data)) = line(rest) else { return Ok(None) };
        let size = plain(size)?.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = number(size, 16)?;
        if size == 0 {
            // Trailers, and the empty line behind them.
            rest = data;
            while let Some((field, behind)) = line(rest) {
                rest = behind;
                if field.is_empty() {
                    return Ok(Some((body, bytes.len() - rest.len())));
                }
                headers(&[field, b"\r\n"].concat())?;
            }
            return Ok(None);
        }
        let Some(chunk) = data.get(..size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end");
        }
        body.extend_from_slice(&chunk[..size]);
        rest = &data[size + 2..];
    }
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Result<usize, Broken> {
    let digits = std::str::from_utf8(digits).map_err(|_| "a number that is none")?;
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err("a number that is none");
    }
    usize::from_str_radix(digits, radix).map_err(|_| "a number that is too large")
}

fn is_token(text: &[u8]) -> bool {
    let is = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is)
}

/// A line of which no byte is a control but the tab.
fn plain(line: &[u8]) -> Result<&[u8], Broken> {
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if line.iter().any(control) { Err("a control in a line") } else { Ok(line) }
}

/// Bytes for people, long ones by their length.
pub(crate) fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=80 => format!("\"{}\"", bytes.escape_ascii()),
        length => format!("\"{}…\" ({length} bytes)", bytes[..20].escape_ascii()),
    }
}
