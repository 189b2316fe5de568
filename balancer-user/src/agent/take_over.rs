//! An agent takes the place of one that runs: the right to write and the proxy's listeners go from
//! one to the other, by a socket in the state directory.
//!
//! ```text
//! successor                    predecessor
//!   asks                  ──>    ends what it writes, gives up the right to write
//!   takes that right      <──    gives its listeners, and goes on serving requests
//!   carries its set out
//!   serves                ──>    ends as it does at SIGTERM
//! ```
//!
//! A line of JSON each. Whoever goes away before the end leaves the other one alone: a successor
//! ends before it has changed anything, a predecessor ends with an error.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixListener,
    sync::mpsc,
    task::{AbortHandle, spawn_blocking},
};
use tracing::{error, info, warn};

use super::AgentError;
use crate::{
    kernel::{
        Datapath, KernelError,
        passed::{self, Named},
    },
    node::{Node, NodeError},
};

/// The socket in the state directory.
const SOCKET: &str = "take-over.sock";
/// What both have to speak.
const WORDS: u32 = 1;
/// Bytes of a line at most.
const LINE: usize = 64 * 1024;
/// How long a line may take to come. A publish that is under way ends before the answer.
const WITHIN: Duration = Duration::from_secs(15);
/// How long a successor may take until it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// How long the right to write may be with somebody else who was faster.
const RIGHT_WITHIN: Duration = Duration::from_secs(5);

/// What a successor says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Asks {
    TakeOver { words: u32, bpffs: PathBuf },
    Serves,
}

/// What a predecessor says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Answers {
    /// Names of the files that come with it.
    Gives(Vec<String>),
    Refuses(String),
}

fn say(stream: &UnixStream, words: &impl Serialize, files: &Named) -> io::Result<()> {
    passed::send(stream, &serde_json::to_string(words)?, files)
}

fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "it went away");
    let (line, files) = passed::receive(stream, LINE)?.ok_or_else(gone)?;
    match serde_json::from_str(&line) {
        Ok(words) => Ok((words, files)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it speaks other words, as another version may: {line:.80}"),
        )),
    }
}

/// Where a running agent hears of its successor. Gone when it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    hearing: AbortHandle,
    heard: mpsc::Receiver<Successor>,
}

impl Door {
    /// Whoever calls this has the right to write: a socket that is there already is nobody's.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn open(state: &Path, bpffs: &Path) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let (tell, heard) = mpsc::channel(1);
        let bpffs = std::path::absolute(bpffs)?;
        let hearing = tokio::spawn(hear_successors(listener, bpffs, tell)).abort_handle();
        Ok(Self { path, hearing, heard })
    }

    /// Waits for somebody who may take over.
    pub(super) async fn successor(door: &mut Option<Self>) -> Successor {
        if let Some(door) = door
            && let Some(successor) = door.heard.recv().await
        {
            return successor;
        }
        std::future::pending().await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.hearing.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "a socket is left");
        }
    }
}

async fn hear_successors(listener: UnixListener, bpffs: PathBuf, tell: mpsc::Sender<Successor>) {
    loop {
        let successor = async {
            let (stream, _) = listener.accept().await?;
            let stream = stream.into_std()?;
            let bpffs = bpffs.clone();
            spawn_blocking(move || Successor::hear(stream, &bpffs))
                .await
                .map_err(io::Error::other)?
        };
        match successor.await {
            // Whoever has stopped listening is about to end.
            Ok(successor) => _ = tell.send(successor).await,
            Err(error) => {
                warn!(%error, "somebody asked to take over, and may not");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Who takes over, seen by its predecessor.
#[derive(Debug)]
pub(super) struct Successor(UnixStream);

impl Successor {
    fn hear(stream: UnixStream, bpffs: &Path) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        let why = match hear(&stream) {
            Ok((Asks::TakeOver { words: WORDS, bpffs: asked }, _)) if asked == bpffs => {
                return Ok(Self(stream));
            }
            Ok((Asks::TakeOver { words: WORDS, bpffs: asked }, _)) => {
                format!("it writes at {}, not at {}", bpffs.display(), asked.display())
            }
            Ok((Asks::TakeOver { words, .. }, _)) => {
                format!("it is of another version, and speaks words {WORDS} instead of {words}")
            }
            Ok((Asks::Serves, _)) => "nobody has asked it before".to_owned(),
            Err(error) => error.to_string(),
        };
        say(&stream, &Answers::Refuses(why.clone()), &Named::new())?;
        Err(io::Error::other(why))
    }

    /// To wait for it no longer: once that is shut down, [`Successor::give`] ends.
    ///
    /// # Errors
    /// There are too many files.
    pub(super) fn end(&self) -> io::Result<UnixStream> {
        self.0.try_clone()
    }

    /// Gives it the listeners, now that the right to write is nobody's, and waits until it serves.
    /// What is given is closed here.
    ///
    /// # Errors
    /// It has gone, or has not served in time.
    pub(super) fn give(self, listeners: Named) -> io::Result<()> {
        let names = listeners.iter().map(|(name, _)| name.clone()).collect();
        say(&self.0, &Answers::Gives(names), &listeners)?;
        drop(listeners);
        self.0.set_read_timeout(Some(SERVES_WITHIN))?;
        match hear(&self.0)? {
            (Asks::Serves, _) => Ok(()),
            _ => Err(io::Error::other("it said something else than that it serves")),
        }
    }
}

/// Who was taken over, seen by its successor.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    pid: i32,
}

/// Asks the agent that runs for its place and its listeners. `None`: none runs.
///
/// # Errors
/// It refuses or does not answer; or this process could not carry on, which is found out before.
pub(super) fn ask(state: &Path, bpffs: &Path) -> Result<Option<(Predecessor, Named)>, AgentError> {
    // What is loaded stays: a version that cannot work with it must leave its place to the other.
    match Datapath::open_read_only(bpffs) {
        Ok(_) | Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => {}
        Err(source) => return Err(NodeError::Kernel { doing: "cannot take over", source }.into()),
    }
    let path = state.join(SOCKET);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
            _ => {
                let agent = path.display().to_string();
                return Err(AgentError::TakeOver { agent, source: error });
            }
        },
    };
    let pid = pid_of(&stream);
    asked(&stream, bpffs, WITHIN)
        .map(|given| Some((Predecessor { stream, pid }, given)))
        .map_err(|source| AgentError::TakeOver { agent: format!("process {pid}"), source })
}

/// The process at the other end; 0: of a pid namespace that this one cannot see.
fn pid_of(stream: &UnixStream) -> i32 {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(stream, PeerCredentials).map_or(0, |peer| peer.pid())
}

fn asked(stream: &UnixStream, bpffs: &Path, within: Duration) -> io::Result<Named> {
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let bpffs = std::path::absolute(bpffs)?;
    say(stream, &Asks::TakeOver { words: WORDS, bpffs }, &Named::new())?;
    let answer = hear(stream).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it has not answered within {within:?}"),
        ),
        _ => error,
    })?;
    match answer {
        (Answers::Gives(names), files) if names.len() == files.len() => {
            Ok(names.into_iter().zip(files).collect())
        }
        (Answers::Gives(names), files) => Err(io::Error::other(format!(
            "it has given {} files and names {}",
            files.len(),
            names.len()
        ))),
        (Answers::Refuses(why), _) => Err(io::Error::other(why)),
    }
}

impl Predecessor {
    /// Takes the right to write, which the predecessor has given up; somebody else may have been
    /// faster, and is waited for.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub(super) fn open(&self, bpffs: &Path, state: &Path) -> Result<Node, NodeError> {
        let begun = Instant::now();
        loop {
            match Node::open(bpffs, state) {
                Err(NodeError::Kernel { source: KernelError::Busy { .. }, .. })
                    if begun.elapsed() < RIGHT_WITHIN =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => return opened,
            }
        }
    }

    /// Has it end.
    pub(super) fn serves(self) {
        match say(&self.stream, &Asks::Serves, &Named::new()) {
            Ok(()) => info!(predecessor = self.pid, "taken over"),
            Err(error) => error!(%error, predecessor = self.pid, "the agent before has gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn asked_of(answer: Option<&str>) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        if let Some(answer) = answer {
            passed::send(&theirs, answer, &Named::new()).unwrap();
        }
        asked(&ours, Path::new("/sys/fs/bpf/balancer"), SOON).unwrap_err().to_string()
    }

    #[test]
    fn whoever_does_not_answer_as_it_should_is_given_up_and_the_error_says_why() {
        assert_eq!(asked_of(None), "it has not answered within 50ms");
        assert_eq!(asked_of(Some(r#"{"refuses":"it is Sunday"}"#)), "it is Sunday");
        assert_eq!(asked_of(Some(r#"{"gives":["a"]}"#)), "it has given 0 files and names 1");
        assert!(asked_of(Some("{}")).starts_with("it speaks other words"));
    }

    #[test]
    fn files_come_with_their_names_and_the_successor_says_that_it_serves() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        let giving = std::thread::spawn(move || {
            let successor = Successor::hear(theirs, Path::new("/a")).unwrap();
            successor.give(vec![("one".to_owned(), file.into())])
        });
        let given = asked(&ours, Path::new("/a"), WITHIN).unwrap();
        assert_eq!(given.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["one"]);
        Predecessor { stream: ours, pid: 0 }.serves();
        giving.join().unwrap().unwrap();
    }

    #[test]
    fn who_asks_for_another_directory_or_by_other_words_is_refused() {
        for (asks, why) in [
            (r#"{"take_over":{"words":1,"bpffs":"/b"}}"#, "it writes at /a, not at /b"),
            (r#"{"take_over":{"words":2,"bpffs":"/a"}}"#, "speaks words 1 instead of 2"),
            (r#""serves""#, "nobody has asked it before"),
        ] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            passed::send(&ours, asks, &Named::new()).unwrap();
            Successor::hear(theirs, Path::new("/a")).unwrap_err();
            let (Answers::Refuses(said), _) = hear(&ours).unwrap() else { panic!("refused") };
            assert!(said.contains(why), "{said}");
        }
    }
}
