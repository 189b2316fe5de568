//! Open files that come from another process.

use std::{
    io::{self, IoSlice, IoSliceMut, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Files with the names by which processes know them.
pub type Named = Vec<(String, OwnedFd)>;

/// What the service manager has kept for this process (sd_listen_fds(3)); nothing the second time.
/// To be called before the process opens files of its own.
///
/// # Errors
/// The manager's words are not understood, or it has passed less than it says.
pub fn inherited() -> io::Result<Named> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Ok(Named::new());
    }
    let files = sd_notify::listen_fds_with_names()?;
    // SAFETY: the manager opened them for this process alone, which is asked for by its id; they
    // are open, since their flags were just set; and nobody takes them a second time.
    Ok(files.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}

/// Files that one message takes (`SCM_MAX_FD` in net/core/scm.c).
const FILES_MAX: usize = 253;

/// Sends a line, and files with it.
///
/// # Errors
/// The other end is gone or does not read, or there are more than 253 files.
pub fn send(mut socket: &UnixStream, line: &str, files: &[(String, OwnedFd)]) -> io::Result<()> {
    let fds: Vec<RawFd> = files.iter().map(|(_, file)| file.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[] } else { &control[..] };
    let text = format!("{line}\n");
    let slices = [IoSlice::new(text.as_bytes())];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(&text.as_bytes()[sent..])
}

/// Receives a line without its end, and the files that came with it. `None`: the other end is gone.
///
/// # Errors
/// The socket's time is over, or more than `bytes` came without the end of a line.
pub fn receive(socket: &UnixStream, bytes: usize) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; FILES_MAX]);
    loop {
        let length = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: the kernel has just opened them for this process.
                    files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            message.bytes
        };
        if length == 0 {
            return Ok(None);
        }
        line.extend_from_slice(&buffer[..length]);
        if line.pop_if(|byte| *byte == b'\n').is_some() {
            return Ok(Some((String::from_utf8_lossy(&line).into_owned(), files)));
        }
        if line.len() > bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
        }
    }
}
