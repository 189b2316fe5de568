//! Names and contents of the files of a state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{ASSIGNMENTS, StoreError};

/// What a file must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlives {
    /// The process that writes it. After a power cut it may be there in part.
    Process,
    /// A power cut: VIPs that clients know depend on it.
    PowerCut,
}

/// The record of an epoch. Maps do not outlive a boot, so neither does what is said of them.
pub(super) fn live_name(epoch: u64, boot: &str) -> String {
    format!("live-{epoch}-{boot}.json")
}

/// The record of an epoch as versions before the third wrote it.
pub(super) fn old_live_name(epoch: u64) -> String {
    format!("live-{epoch}.json")
}

/// XXH3 of 128 bits: tells accidents apart, not attackers; who can write here is root anyway.
pub(super) fn hash_of(text: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

/// The name of a text.
pub(super) fn hash_name(hash: u128) -> String {
    format!("{hash:032x}")
}

pub(super) fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a writer that was killed left beside its file; see [`Store::write`](super::Store).
pub(super) fn is_unfinished(name: &str) -> bool {
    let Some((name, pid)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
        return false;
    };
    let ours = name == ASSIGNMENTS || is_hash(name) || record_of(name).is_some();
    ours && pid.parse::<u32>().is_ok()
}

/// The epoch in the name of a record, and the boot where it says so.
pub(super) fn record_of(name: &str) -> Option<(u64, Option<&str>)> {
    let rest = name.strip_prefix("live-")?.strip_suffix(".json")?;
    let (epoch, boot) = match rest.split_once('-') {
        Some((epoch, boot)) => (epoch, Some(Some(boot).filter(|boot| is_hash(boot))?)),
        None => (rest, None),
    };
    let epoch = epoch.parse().ok()?;
    let written = boot.map_or_else(|| old_live_name(epoch), |boot| live_name(epoch, boot));
    (written == name).then_some((epoch, boot))
}

/// The parsed file, or `None` where there is none. `newest` is the last version that is read.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    newest: u32,
) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path, source)),
    };
    // The version first: the other fields of another version may be named differently.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    match serde_json::from_slice::<Version>(&bytes) {
        Ok(Version { format }) if (1..=newest).contains(&format) => {}
        Ok(Version { format }) => {
            return Err(damaged(
                path,
                format!("it has format {format}, this balancer reads 1 to {newest}"),
            ));
        }
        Err(error) => return Err(damaged(path, error.to_string())),
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error.to_string()))
}

/// Entries of a directory, sorted; none where there is no such directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read", directory, source)),
    };
    let mut paths = read
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| failed("read", directory, source))?;
    paths.sort();
    Ok(paths)
}

pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing, path: path.to_owned(), source }
}

pub(super) fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason }
}
