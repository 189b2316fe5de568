//! The archive that a guest boots from: the only file system it ever has.
//!
//! Files keep the paths that they have on this machine, so that programs find their libraries
//! and tests the files of the repository. It is in the `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources) and not
//! compressed: an emulated CPU would take longer to unpack it than QEMU to read it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};

use super::tool;
use crate::run;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Files by their absolute paths in the guest, without the leading `/`.
#[derive(Clone, Default)]
pub(super) struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone)]
struct Entry {
    mode: u32,
    bytes: Arc<[u8]>,
}

impl Initramfs {
    /// Puts `bytes` at `path`.
    pub(super) fn add_bytes(&mut self, path: &Path, bytes: Vec<u8>) {
        self.add(path, Entry { mode: FILE, bytes: bytes.into() });
    }

    /// Puts a file of this machine where it lies.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.add_bytes(path, bytes);
        Ok(())
    }

    /// Puts a program of this machine at `path`, and each library that it names where that lies.
    pub(super) fn add_program(&mut self, program: &Path, path: &Path) -> Result<()> {
        for library in libraries(program)? {
            let bytes =
                fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            self.add(&library, Entry { mode: PROGRAM, bytes: bytes.into() });
        }
        self.add(path, Entry { mode: PROGRAM, bytes: stripped(program)?.into() });
        Ok(())
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        let path = inside(path);
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            let directory = || Entry { mode: DIRECTORY, bytes: Arc::default() };
            self.entries.entry(parent.to_owned()).or_insert_with(directory);
        }
        self.entries.insert(path, entry);
    }

    /// Writes the archive.
    pub(super) fn write(&self, to: impl Write) -> io::Result<()> {
        let mut archive = Archive { to, at: 0 };
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            archive.entry(number, path, entry)?;
        }
        let end = Entry { mode: 0, bytes: Arc::default() };
        archive.entry(0, Path::new("TRAILER!!!"), &end)?;
        archive.to.flush()
    }
}

/// `path` without its root and its dots.
fn inside(path: &Path) -> PathBuf {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => drop(inside.pop()),
            _ => {}
        }
    }
    inside
}

struct Archive<W> {
    to: W,
    at: usize,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, number: u32, path: &Path, entry: &Entry) -> io::Result<()> {
        let name = path.as_os_str().as_encoded_bytes();
        let size = |bytes: usize| {
            u32::try_from(bytes).map_err(|_| io::Error::other("a file of 4 GiB or more"))
        };
        let header = [
            number,
            entry.mode,
            0, // user
            0, // group
            1, // links
            0, // time of the last change
            size(entry.bytes.len())?,
            0, // the device that it lies on: major, minor
            0,
            0, // the device that it is: major, minor
            0,
            size(name.len() + 1)?,
            0, // checksum, of another format
        ];
        self.write(b"070701")?;
        for field in header {
            self.write(format!("{field:08X}").as_bytes())?;
        }
        self.write(name)?;
        self.write(&[0])?;
        self.align()?;
        self.write(&entry.bytes)?;
        self.align()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.to.write_all(bytes)
    }

    /// Names and contents end at a multiple of four bytes.
    fn align(&mut self) -> io::Result<()> {
        let padding = self.at.next_multiple_of(4) - self.at;
        self.write(&[0; 3][..padding])
    }
}

/// What the loader will map beside `program`, the loader itself among it.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new(tool("ldd", "libc-bin")?);
    let output = ldd.arg(program).env("LC_ALL", "C").output().context("cannot run ldd")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A static program has none, which ldd takes for a failure.
    if ["not a dynamic executable", "statically linked"].iter().any(|words| said.contains(words)) {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "`{}` failed: {}", run::shown(&ldd), said.trim());
    named(&said).with_context(|| format!("{} cannot run in a guest", program.display()))
}

/// The paths in what ldd says: `NAME => PATH (0x…)`, or `PATH (0x…)` for the loader.
fn named(said: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in said.lines() {
        ensure!(!line.ends_with("not found"), "a library is missing here too: {}", line.trim());
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        libraries.extend(path.map(PathBuf::from));
    }
    Ok(libraries)
}

/// The program without debug information, of which the guest's memory has to hold all.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let to = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new(tool("strip", "binutils")?);
    run::ask(strip.arg("--strip-debug").arg("-o").arg(to.path()).arg(program))?;
    fs::read(to.path()).with_context(|| format!("cannot read {} stripped", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_every_directory_comes_before_what_is_in_it() {
        let mut initramfs = Initramfs::default();
        initramfs.add_bytes(Path::new("/a/x/../bc/d"), b"hello".to_vec());
        let mut archive = Vec::new();
        initramfs.write(&mut archive).unwrap();

        let field = |at: usize, index: usize| {
            let digits = &archive[at + 6 + 8 * index..][..8];
            usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
        };
        let mut entries = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name) = (field(at, 1), field(at, 6), field(at, 11));
            let path = String::from_utf8_lossy(&archive[at + 110..][..name - 1]).into_owned();
            let begin = (at + 110 + name).next_multiple_of(4);
            entries.push((path, mode, archive[begin..begin + size].to_vec()));
            at = (begin + size).next_multiple_of(4);
        }
        let expected = [
            ("a", 0o040_755, &b""[..]),
            ("a/bc", 0o040_755, b""),
            ("a/bc/d", 0o100_644, b"hello"),
            ("TRAILER!!!", 0, b""),
        ];
        assert_eq!(entries, expected.map(|(p, m, b)| (p.to_owned(), m, b.to_vec())));
    }

    #[test]
    fn libraries_and_the_loader_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(named(said).unwrap(), paths.map(PathBuf::from));
        let error = named("\tlibgone.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libgone.so.1"), "{error}");
    }
}
