//! Files that a service manager keeps from one process to the next (sd_listen_fds(3)).

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    process::Command,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        stat::fstat,
    },
};

/// The first descriptor that a process is given.
const FIRST: i32 = 3;

/// What is kept, each with its name.
#[derive(Debug, Default)]
pub struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    /// How many files are kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in the order in which the files came.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Receives a message and carries out what it says of files: FDSTORE, FDSTOREREMOVE.
    pub(crate) fn receive(&mut self, socket: &UnixDatagram) -> io::Result<String> {
        let mut buffer = [0; 4096];
        let mut space = nix::cmsg_space!([i32; 16]);
        let (length, files) = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
            let mut files = Vec::new();
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: the kernel has just opened them for this process.
                    files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            (message.bytes, files)
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let name = name.unwrap_or("stored");
        if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
            self.0.retain(|(known, _)| known != name);
        }
        if text.lines().any(|line| line == "FDSTORE=1") {
            for file in files {
                self.keep(name, file)?;
            }
        }
        Ok(text)
    }

    /// As systemd does: a file that is there already is not kept twice.
    fn keep(&mut self, name: &str, file: OwnedFd) -> io::Result<()> {
        let new = fstat(&file)?;
        for (_, known) in &self.0 {
            let known = fstat(known)?;
            if (known.st_dev, known.st_ino) == (new.st_dev, new.st_ino) {
                return Ok(());
            }
        }
        self.0.push((name.to_owned(), file));
        Ok(())
    }

    /// Has `command` started with the files, as a service manager would. LISTEN_PID is left to it:
    /// its process id is known to itself alone.
    pub(crate) fn pass(&self, command: &mut Command) -> io::Result<()> {
        let mut files = Vec::new();
        for (_, file) in &self.0 {
            // Beyond those that they are to become: none takes the place of one still to be moved.
            let moved = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(500))?;
            // SAFETY: it was opened by the line before.
            files.push(unsafe { OwnedFd::from_raw_fd(moved) });
        }
        command.env("LISTEN_FDS", files.len().to_string());
        command.env("LISTEN_FDNAMES", self.names().join(":"));
        let place = move || {
            for (fd, file) in (FIRST..).zip(&files) {
                // SAFETY: both are numbers. What `fd` was in the child before is closed at exec but
                // for one end of a pipe, by which a failure of exec would be told.
                if unsafe { libc::dup2(file.as_raw_fd(), fd) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls on descriptors that it
        // keeps open; it allocates and locks nothing.
        unsafe { command.pre_exec(place) };
        Ok(())
    }
}
