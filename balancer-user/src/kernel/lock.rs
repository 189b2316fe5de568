//! One writer at a time: flock on the pin directory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        stat::{major, minor},
        statfs::{BPF_FS_MAGIC, statfs},
    },
};

use super::KernelError;

/// The right to write. Given back when the last clone is dropped, or when the process ends in
/// whatever way.
#[derive(Clone, Debug)]
pub struct Lock {
    path: PathBuf,
    _held: Arc<Flock<File>>,
}

impl Lock {
    /// The pin directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the pin directory where its parent is on a BPF file system, and takes the right to
/// write there.
///
/// # Errors
/// [`KernelError::NotPermitted`], [`KernelError::NoParent`], [`KernelError::NoBpffs`],
/// [`KernelError::Busy`] with the pid of the other writer.
pub fn lock(bpffs: &Path) -> Result<Lock, KernelError> {
    require_privileges("loading programs and maps")?;
    loop {
        make_directory(bpffs)?;
        let open = |e| KernelError::system(format!("opening {}", bpffs.display()), e);
        let dir = match File::open(bpffs) {
            Ok(dir) => dir,
            // An `unload` removed it since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(open(e)),
        };
        let held = hold(dir, bpffs)?;
        // The lock must be on what the path names now, not on a directory removed meanwhile.
        let same = match fs::metadata(bpffs) {
            Ok(now) => now.ino() == held.metadata().map_err(open)?.ino(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(open(e)),
        };
        if same {
            return Ok(Lock { path: bpffs.to_owned(), _held: Arc::new(held) });
        }
    }
}

/// Takes the flock on `dir`, which is at `path`.
///
/// # Errors
/// [`KernelError::Busy`] where another process has it.
pub(crate) fn hold(dir: File, path: &Path) -> Result<Flock<File>, KernelError> {
    match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(held),
        Err((dir, nix::Error::EWOULDBLOCK)) => {
            let pid = holder(&dir).map_err(|e| {
                KernelError::system(format!("asking who has the lock of {}", path.display()), e)
            })?;
            Err(KernelError::Busy { path: path.to_owned(), pid })
        }
        Err((_, e)) => Err(KernelError::system(format!("locking {}", path.display()), e.into())),
    }
}

/// Makes `path` if it is missing, and checks that it is on a BPF file system.
fn make_directory(path: &Path) -> Result<(), KernelError> {
    check_place(path)?;
    if path.is_dir() {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(KernelError::system(format!("making {}", path.display()), e)),
    }
}

/// Checks that `path` is on a BPF file system, or can be made on one.
pub(crate) fn check_place(path: &Path) -> Result<(), KernelError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let at = if path.is_dir() { path } else { parent };
    if !at.is_dir() {
        return Err(KernelError::NoParent { path: path.to_owned(), parent: parent.to_owned() });
    }
    match statfs(at) {
        Ok(fs) if fs.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => {
            Err(KernelError::NoBpffs { path: path.to_owned(), mount_at: mount_point(path, parent) })
        }
        Err(e) => Err(KernelError::system(format!("statfs of {}", at.display()), e.into())),
    }
}

/// Where to mount: the place that distributions use where the path lies there.
fn mount_point(path: &Path, parent: &Path) -> PathBuf {
    let usual = Path::new("/sys/fs/bpf");
    if path.starts_with(usual) { usual.to_owned() } else { parent.to_owned() }
}

/// The process that holds the flock on `dir`, from `/proc/locks` (proc(5)); `None` where it is
/// in a pid namespace that this process cannot see.
fn holder(dir: &File) -> io::Result<Option<u32>> {
    let meta = dir.metadata()?;
    let id = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    Ok(holder_in(&fs::read_to_string("/proc/locks")?, &id))
}

/// See [`holder`].
fn holder_in(locks: &str, id: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|f| *f == "FLOCK")?;
        // "2: -> FLOCK …" waits for the lock, it does not hold it.
        let waits = fields.get(1) == Some(&"->");
        let (pid, place) = (fields.get(at + 3)?, fields.get(at + 4)?);
        if waits || *place != id {
            return None;
        }
        pid.parse().ok().filter(|pid| *pid != 0)
    })
}

/// Bits of capabilities (capability.h).
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// Checks the effective capabilities: BPF, perfmon (the verifier's leave to compare pointers)
/// and net admin; CAP_SYS_ADMIN stands for the first two (capabilities(7)).
pub(crate) fn require_privileges(action: &str) -> Result<(), KernelError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|e| KernelError::system("reading /proc/self/status", e))?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        return Ok(());
    }
    Err(KernelError::NotPermitted { action: action.to_owned(), missing: missing.join(", ") })
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    CAPABILITIES
        .into_iter()
        .filter(|(bit, name)| !(has(*bit) || (*name != "CAP_NET_ADMIN" && has(CAP_SYS_ADMIN))))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_read_from_proc_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 70 00:1a:99 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 00:1b:99 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 00:1b:99 0 EOF\n";
        assert_eq!(holder_in(locks, "00:1b:99"), Some(4711));
        assert_eq!(holder_in(locks, "00:1a:99"), None);
        assert_eq!(holder_in("2: FLOCK  ADVISORY  WRITE 0 00:1b:99 0 EOF", "00:1b:99"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000000000\n"),
            ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]
        );
        // Net admin and sys admin.
        assert!(missing_capabilities("CapEff:\t0000000000201000\n").is_empty());
    }

    #[test]
    fn directory_outside_bpffs_is_refused_with_the_mount_command() {
        let dir = tempfile::tempdir().expect("tempdir");
        let error = make_directory(&dir.path().join("x")).expect_err("no bpffs");
        let text = error.to_string();
        assert!(text.contains("mount -t bpf bpf"), "{text}");
        assert!(!dir.path().join("x").exists());
        let error = make_directory(&dir.path().join("no/such")).expect_err("no parent");
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}
