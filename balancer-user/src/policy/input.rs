//! Files, directories and standard input into texts.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{SourceText, Texts};

/// Largest input file. Policies are written by people and small generators; what is larger is
/// a file of another sort.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Suffixes of the files that a directory is searched for.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];

/// Directories nested deeper than this are taken for a mistake.
const DIRECTORY_DEPTH_MAX: usize = 64;

/// Why an input cannot be used. Every variant names the path and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path is not there.
    #[error("{path}: no such file or directory; check the spelling of the path after -f")]
    Missing {
        /// The path.
        path: String,
    },
    /// It was there when its directory was listed.
    #[error(
        "{path}: vanished while it was being read; run the command again when the directory is at rest"
    )]
    Vanished {
        /// The path.
        path: String,
    },
    /// The operating system refuses.
    #[error("{path}: cannot be read: {source}; check its owner and mode")]
    Unreadable {
        /// The path.
        path: String,
        /// Its words.
        source: io::Error,
    },
    /// A directory has nothing to read.
    #[error(
        "{path}: holds no *.yaml, *.yml or *.json file, not in its subdirectories either; name another directory or a file"
    )]
    EmptyDirectory {
        /// The directory.
        path: String,
    },
    /// A directory is reached through itself.
    #[error(
        "{path}: leads back to a directory that is already being read (symbolic link loop); remove the link or name the files one by one"
    )]
    Loop {
        /// The path at which the loop closes.
        path: String,
    },
    /// More than `DIRECTORY_DEPTH_MAX` levels.
    #[error(
        "{path}: directories nested deeper than {DIRECTORY_DEPTH_MAX} levels; name the files one by one"
    )]
    TooDeep {
        /// The directory.
        path: String,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error(
        "{path}: larger than 16 MiB, which is more than a policy file may have; split it, or check that it is one"
    )]
    TooLarge {
        /// The path.
        path: String,
    },
    /// Bytes that are no text.
    #[error("{path}: is binary (a NUL byte at offset {offset}); name a YAML or JSON file")]
    Binary {
        /// The path.
        path: String,
        /// Offset of the first NUL, from 0.
        offset: usize,
    },
    /// Bytes that are another encoding.
    #[error(
        "{path}: is not UTF-8 (line {line}, byte {offset}); convert it, e.g. with iconv -t UTF-8"
    )]
    NotUtf8 {
        /// The path.
        path: String,
        /// Line of the first bad byte, from 1.
        line: usize,
        /// Its offset, from 0.
        offset: usize,
    },
    /// A socket, a device, …
    #[error("{path}: is neither a file nor a directory; name a YAML or JSON file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// `-` more than once.
    #[error("-: standard input can be read once only; give -f - a single time")]
    StdinTwice,
}

impl InputError {
    /// The input that cannot be used.
    pub fn path(&self) -> &str {
        match self {
            Self::Missing { path }
            | Self::Vanished { path }
            | Self::Unreadable { path, .. }
            | Self::EmptyDirectory { path }
            | Self::Loop { path }
            | Self::TooDeep { path }
            | Self::TooLarge { path }
            | Self::Binary { path, .. }
            | Self::NotUtf8 { path, .. }
            | Self::NotAFile { path } => path,
            Self::StdinTwice => "-",
        }
    }

    /// The line that cannot be read, from 1, where that much is known.
    pub fn line(&self) -> Option<u32> {
        match self {
            Self::NotUtf8 { line, .. } => u32::try_from(*line).ok(),
            _ => None,
        }
    }
}

/// Reads files, directories (`*.yaml`, `*.yml`, `*.json`, recursive, sorted by path; names that
/// begin with a dot are left out) and `-` for standard input. A file that is named twice is read once.
///
/// # Errors
///
/// The first input that cannot be used; nothing is returned then.
pub fn gather(paths: &[PathBuf]) -> Result<Texts, InputError> {
    gather_from(paths, &mut io::stdin().lock(), &mut ())
}

/// As [`gather`], without reading files of which `known` has the text.
///
/// # Errors
///
/// As those of [`gather`].
pub fn gather_changed(paths: &[PathBuf], known: &mut dyn Known) -> Result<Texts, InputError> {
    gather_from(paths, &mut io::stdin().lock(), known)
}

/// What is known of files that were read before.
pub trait Known {
    /// The text of a file that has not changed since it was read, as its metadata tell.
    fn text(&mut self, path: &Path, metadata: &fs::Metadata) -> Option<SourceText>;

    /// A file was read that had these metadata when it was opened.
    fn was_read(&mut self, path: &Path, metadata: &fs::Metadata, text: &SourceText);
}

/// Nothing is known.
impl Known for () {
    fn text(&mut self, _: &Path, _: &fs::Metadata) -> Option<SourceText> {
        None
    }

    fn was_read(&mut self, _: &Path, _: &fs::Metadata, _: &SourceText) {}
}

fn gather_from(
    paths: &[PathBuf],
    stdin: &mut dyn Read,
    known: &mut dyn Known,
) -> Result<Texts, InputError> {
    let mut texts = Texts::new();
    let mut seen = BTreeSet::new();
    let mut stdin_read = false;
    for path in paths {
        if path == Path::new("-") {
            if std::mem::replace(&mut stdin_read, true) {
                return Err(InputError::StdinTwice);
            }
            texts.push_back(read_text(Path::new("-"), stdin)?);
            continue;
        }
        let metadata = fs::metadata(path).map_err(|e| refused(path, e, Named::ByName))?;
        if metadata.is_dir() {
            let before = texts.len();
            let mut found = false;
            let mut ancestors = Vec::new();
            walk(path, &mut ancestors, &mut |file, real, metadata| {
                found = true;
                if seen.insert(real) {
                    texts.push_back(read_file(file, metadata, Named::ByListing, known)?);
                }
                Ok(())
            })?;
            if !found && texts.len() == before {
                return Err(InputError::EmptyDirectory { path: shown(path) });
            }
        } else if seen.insert(identity(path)) {
            texts.push_back(read_file(path, &metadata, Named::ByName, known)?);
        }
    }
    Ok(texts)
}

/// How we came to know of a path: a listed one that is gone has vanished, a named one was
/// never there.
#[derive(Clone, Copy)]
enum Named {
    ByName,
    ByListing,
}

/// Gets a file, the path that it has without symbolic links, and its metadata.
type Visit<'v> = dyn FnMut(&Path, PathBuf, &fs::Metadata) -> Result<(), InputError> + 'v;

fn walk(
    directory: &Path,
    ancestors: &mut Vec<PathBuf>,
    visit: &mut Visit<'_>,
) -> Result<(), InputError> {
    let named = if ancestors.is_empty() { Named::ByName } else { Named::ByListing };
    let real = fs::canonicalize(directory).map_err(|e| refused(directory, e, named))?;
    if ancestors.contains(&real) {
        return Err(InputError::Loop { path: shown(directory) });
    }
    if ancestors.len() >= DIRECTORY_DEPTH_MAX {
        return Err(InputError::TooDeep { path: shown(directory) });
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| refused(directory, e, named))? {
        let entry = entry.map_err(|e| refused(directory, e, named))?;
        // What begins with a dot is of editors, and of Kubernetes' mounts: the visible names lead
        // there too, and lead there as a whole once the mount is complete.
        if !is_hidden(&entry.file_name()) {
            let linked = entry.file_type().map_or(true, |kind| kind.is_symlink());
            entries.push((entry.path(), linked));
        }
    }
    entries.sort();
    for (path, linked) in entries {
        let wanted = path
            .extension()
            .and_then(|suffix| suffix.to_str())
            .is_some_and(|suffix| SUFFIXES.contains(&suffix));
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // An unrelated dangling link is no concern of ours; one that looks like a policy is.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !wanted => continue,
            Err(error) => return Err(refused(&path, error, Named::ByListing)),
        };
        if metadata.is_dir() {
            ancestors.push(real.clone());
            walk(&path, ancestors, visit)?;
            ancestors.pop();
        } else if wanted {
            // Asking the kernel for what is known costs more than all the rest of it.
            let own = path.file_name().filter(|_| !linked).map(|name| real.join(name));
            visit(&path, own.unwrap_or_else(|| identity(&path)), &metadata)?;
        }
    }
    Ok(())
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn read_file(
    path: &Path,
    metadata: &fs::Metadata,
    named: Named,
    known: &mut dyn Known,
) -> Result<SourceText, InputError> {
    // Opening a fifo would wait for its writer.
    if !metadata.is_file() && !is_fifo(metadata) {
        return Err(InputError::NotAFile { path: shown(path) });
    }
    if let Some(text) = known.text(path, metadata) {
        return Ok(text);
    }
    let mut file = File::open(path).map_err(|e| refused(path, e, named))?;
    // Another file may have taken the name.
    let metadata = file.metadata().map_err(|e| refused(path, e, named))?;
    let text = read_text(path, &mut file)?;
    known.was_read(path, &metadata, &text);
    Ok(text)
}

/// `-f <(command)` hands over a pipe: that is as good as a file.
fn is_fifo(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo()
}

fn read_text(path: &Path, from: &mut dyn Read) -> Result<SourceText, InputError> {
    let mut bytes = Vec::new();
    // The length in the metadata may be wrong by the time we read: count what arrives.
    from.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| refused(path, e, Named::ByName))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(InputError::TooLarge { path: shown(path) });
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(InputError::Binary { path: shown(path), offset });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        InputError::NotUtf8 { path: shown(path), line, offset }
    })?;
    Ok(SourceText { name: shown(path), text: text.into() })
}

fn refused(path: &Path, error: io::Error, named: Named) -> InputError {
    let path = shown(path);
    match (error.kind(), named) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Named::ByName) => {
            InputError::Missing { path }
        }
        (io::ErrorKind::NotFound, Named::ByListing) => InputError::Vanished { path },
        // `io::ErrorKind` has a stable name for ELOOP in no release yet.
        _ if error.raw_os_error() == Some(libc::ELOOP) => InputError::Loop { path },
        _ => InputError::Unreadable { path, source: error },
    }
}

/// Two spellings of one file are one file.
fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
