//! The state directory: VIP assignments, and the texts that the live set was made of.
//!
//! ```text
//! vips.json            service → allocated VIP (decision D2); outlives unload and reboot
//! texts/HASH           policy texts, named by their content
//! live-EPOCH.json      which texts and settings the epoch was made of
//! ```
//!
//! Every file is written beside its place and renamed into it, so that a reader meets the old
//! or the new one. `live-EPOCH.json` is written before the epoch is published and those of
//! other epochs are removed after: whichever epoch a crash leaves, its record is there. Names
//! in `show` and `explain` come from compiling the recorded texts again, so there is no second
//! table of names that could drift from the maps.
//!
//! The maps do not outlive a power cut, so neither need the records of what is in them: packets do
//! not wait until those are on the disk. Only a record itself must be whole (a damaged one stops
//! the next publish), while a damaged text is written again.
//!
//! Writers hold the lock on the pin directory; readers need none.
#![forbid(unsafe_code)]

mod error;
mod form;

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use error::StoreError;
use form::{AssignmentRow, AssignmentsFile, LiveFile, ProtocolRow, TextRow, assignment_rows};

use crate::{
    policy::{SourceText, Texts},
    resolve::{ResolveSettings, VipAssignments},
};

/// Version of the files' form. A file of another version is refused, never guessed at.
const FORMAT: u32 = 2;
/// Earlier versions that are read: the first has rows of services by their tag alone, and knows
/// no names.
const READ: &[u32] = &[1, FORMAT];
const ASSIGNMENTS: &str = "vips.json";
const TEXTS: &str = "texts";

/// What the live set was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The pin directory that it was published to.
    pub bpffs: PathBuf,
    /// What resolution depended on, assignments included.
    pub settings: ResolveSettings,
    /// The texts, as given.
    pub texts: Texts,
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The state directory at `state`, which need not exist yet: reading then finds nothing,
    /// and the first save makes it, for its owner alone.
    ///
    /// # Errors
    /// The path is there and not a directory, or cannot be looked at.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        match fs::metadata(state) {
            Ok(meta) if !meta.is_dir() => Err(StoreError::NotADirectory { path: state.to_owned() }),
            Ok(_) => Ok(Self { root: state.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { root: state.to_owned() })
            }
            Err(source) => Err(failed("open", state, source)),
        }
    }

    /// VIPs allocated so far; none where nothing was saved.
    ///
    /// # Errors
    /// The file cannot be read or is damaged. Taking it for empty would move VIPs that clients
    /// have resolved.
    pub fn assignments(&self) -> Result<VipAssignments, StoreError> {
        let path = self.root.join(ASSIGNMENTS);
        let Some(file) = read_json::<AssignmentsFile>(&path)? else {
            return Ok(VipAssignments::new());
        };
        let mut taken = BTreeSet::new();
        let mut assignments = VipAssignments::new();
        for row in file.vips {
            let (owner, vip) = row.into_assignment();
            for address in [vip.v4.map(Into::into), vip.v6.map(Into::into)] {
                let address: Option<std::net::IpAddr> = address;
                if address.is_some_and(|address| !taken.insert(address)) {
                    return Err(damaged(&path, format!("{owner} shares its VIP with another")));
                }
            }
            if assignments.insert(owner.clone(), vip).is_some() {
                return Err(damaged(&path, format!("{owner} is there twice")));
            }
        }
        Ok(assignments)
    }

    /// Keeps `assignments` for later loads. Does nothing where they are what is kept.
    ///
    /// # Errors
    /// The directory or file cannot be written, or what is there is damaged.
    pub fn save_assignments(&self, assignments: &VipAssignments) -> Result<(), StoreError> {
        if self.assignments()? == *assignments {
            return Ok(());
        }
        self.write_json(
            ASSIGNMENTS,
            &AssignmentsFile { format: FORMAT, vips: assignment_rows(assignments) },
            Outlives::PowerCut,
        )
    }

    /// Checks that no instance but the one pinned at `bpffs` keeps its records here.
    ///
    /// # Errors
    /// [`StoreError::Foreign`], or a record is damaged or cannot be read.
    pub fn check_owner(&self, bpffs: &Path) -> Result<(), StoreError> {
        match self.records()?.into_iter().find(|(_, _, record)| record.bpffs != bpffs) {
            Some((path, _, record)) => {
                Err(StoreError::Foreign { path, owner: record.bpffs.display().to_string() })
            }
            None => Ok(()),
        }
    }

    /// Records what `epoch` is made of. Call it before the epoch is published.
    ///
    /// # Errors
    /// A file cannot be written, or the directory belongs to an instance pinned elsewhere.
    pub fn save_live(&self, epoch: u64, live: &Live) -> Result<(), StoreError> {
        self.check_owner(&live.bpffs)?;
        let texts = live
            .texts
            .iter()
            .map(|text| Ok(TextRow { name: text.name.clone(), hash: self.save_text(&text.text)? }))
            .collect::<Result<_, StoreError>>()?;
        let settings = &live.settings;
        self.write_json(
            &live_name(epoch),
            &LiveFile {
                format: FORMAT,
                bpffs: live.bpffs.clone(),
                vips4: settings.vips4,
                vips6: settings.vips6,
                zone: settings.zone.clone(),
                no_route: settings.no_route,
                gateway_controller: settings.gateway_controller.clone(),
                allow_plain: settings.allow_plain,
                protocols: settings.protocols.iter().map(ProtocolRow::of).collect(),
                names: settings.names.clone(),
                assigned: assignment_rows(&settings.assigned),
                texts,
            },
            Outlives::PowerCutOrIsGone,
        )
    }

    /// Records that `to` is made of what `from` was. Call it before `to` is published.
    ///
    /// # Errors
    /// The record of `from` is missing or damaged, or a file cannot be written.
    pub fn copy_live(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let path = self.root.join(live_name(from));
        match read_json::<LiveFile>(&path)? {
            Some(record) => self.write_json(&live_name(to), &record, Outlives::PowerCutOrIsGone),
            None => Err(failed("read", &path, io::ErrorKind::NotFound.into())),
        }
    }

    /// Keeps a file of another form beside the records. It is replaced as a whole, and need not
    /// survive a power cut.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.make_directory(&self.root)?;
        let beside = self.root.join(format!(".{name}.beside"));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&beside, &path));
        written.map_err(|source| failed("write", &path, source))
    }

    /// The file that [`Store::keep`] keeps; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    fn make_directory(&self, directory: &Path) -> Result<(), StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| failed("create", directory, source))
    }

    /// What `epoch` was made of; `None` where no record of it is here.
    ///
    /// # Errors
    /// The record or a text of it is missing, damaged or cannot be read.
    pub fn live(&self, epoch: u64) -> Result<Option<Live>, StoreError> {
        let path = self.root.join(live_name(epoch));
        let Some(file) = read_json::<LiveFile>(&path)? else { return Ok(None) };
        let texts = file
            .texts
            .into_iter()
            .map(|row| Ok(SourceText { text: self.text(&row.hash)?, name: row.name }))
            .collect::<Result<_, StoreError>>()?;
        Ok(Some(Live {
            bpffs: file.bpffs,
            settings: ResolveSettings {
                vips4: file.vips4,
                vips6: file.vips6,
                zone: file.zone,
                no_route: file.no_route,
                gateway_controller: file.gateway_controller,
                allow_plain: file.allow_plain,
                protocols: file.protocols.into_iter().map(ProtocolRow::into_rule).collect(),
                names: file.names,
                assigned: file.assigned.into_iter().map(AssignmentRow::into_assignment).collect(),
            },
            texts,
        }))
    }

    /// Removes the records of every epoch but `epoch`, and the texts that only they name.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub fn forget_others(&self, epoch: u64) -> Result<(), StoreError> {
        self.forget(|record, _| record == epoch)
    }

    /// Removes every record of the instance pinned at `bpffs`, and the texts that only they
    /// name; VIP assignments stay.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub fn forget_instance(&self, bpffs: &Path) -> Result<(), StoreError> {
        self.forget(|_, record| record.bpffs != bpffs)
    }

    fn forget(&self, keep: impl Fn(u64, &LiveFile) -> bool) -> Result<(), StoreError> {
        let mut kept_texts = BTreeSet::new();
        for (path, epoch, record) in self.records()? {
            if keep(epoch, &record) {
                kept_texts.extend(record.texts.into_iter().map(|row| row.hash));
            } else {
                remove(&path)?;
            }
        }
        // Only names that this file gives: whatever else lies there is not ours.
        let texts = entries(&self.root.join(TEXTS))?;
        for path in entries(&self.root)?.iter().chain(&texts) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_unfinished(name) || (is_hash(name) && !kept_texts.contains(name)) {
                remove(path)?;
            }
        }
        Ok(())
    }

    /// Every record with its epoch, sorted by path.
    fn records(&self) -> Result<Vec<(PathBuf, u64, LiveFile)>, StoreError> {
        let mut records = Vec::new();
        for path in entries(&self.root)? {
            let epoch = path.file_name().and_then(|name| name.to_str()).and_then(epoch_of);
            let Some(epoch) = epoch else { continue };
            if let Some(record) = read_json(&path)? {
                records.push((path, epoch, record));
            }
        }
        Ok(records)
    }

    /// Writes a text under the hash of its content, where it is not there already.
    fn save_text(&self, text: &str) -> Result<String, StoreError> {
        let hash = hash_of(text);
        let path = self.root.join(TEXTS).join(&hash);
        match fs::read_to_string(&path) {
            Ok(there) if there == text => return Ok(hash),
            // Cut short by a full disk, say: written again below.
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            }
            Err(source) => return Err(failed("read", &path, source)),
        }
        self.write(&path, text.as_bytes(), Outlives::Process)?;
        Ok(hash)
    }

    fn text(&self, hash: &str) -> Result<Arc<str>, StoreError> {
        let path = self.root.join(TEXTS).join(hash);
        if !is_hash(hash) {
            return Err(damaged(&path, "its name is no hash".to_owned()));
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(&path, "it is not UTF-8".to_owned()));
            }
            Err(source) => return Err(failed("read", &path, source)),
        };
        if hash_of(&text) != hash {
            return Err(damaged(&path, "its content does not have the hash it is named by".into()));
        }
        Ok(text.into())
    }

    fn write_json<T: Serialize>(
        &self,
        name: &str,
        value: &T,
        outlives: Outlives,
    ) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| failed("write", &path, error.into()))?;
        bytes.push(b'\n');
        self.write(&path, &bytes, outlives)
    }

    /// Writes beside `path`, syncs as far as asked, renames into place.
    fn write(&self, path: &Path, bytes: &[u8], outlives: Outlives) -> Result<(), StoreError> {
        let directory = path.parent().unwrap_or(&self.root);
        self.make_directory(directory)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = directory.join(format!(".{name}.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                if outlives >= Outlives::PowerCutOrIsGone { file.sync_all() } else { Ok(()) }
            })
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| match outlives {
                Outlives::PowerCut => fs::File::open(directory)?.sync_all(),
                _ => Ok(()),
            });
        written.map_err(|source| {
            // The write's error is the one to report; what may be left is removed by `forget`.
            let _ = fs::remove_file(&beside);
            failed("write", path, source)
        })
    }
}

/// What a file must outlive; each step waits longer for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outlives {
    /// The process that writes it. After a power cut it may be there in part.
    Process,
    /// After a power cut it is there as a whole, or not at all.
    PowerCutOrIsGone,
    /// It is there after a power cut: VIPs that clients know depend on it.
    PowerCut,
}

fn live_name(epoch: u64) -> String {
    format!("live-{epoch}.json")
}

/// XXH3 of 128 bits: tells accidents apart, not attackers; who can write here is root anyway.
fn hash_of(text: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a writer that was killed left beside its file; see [`Store::write`].
fn is_unfinished(name: &str) -> bool {
    let Some((name, pid)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
        return false;
    };
    let ours = name == ASSIGNMENTS || is_hash(name) || epoch_of(name).is_some();
    ours && pid.parse::<u32>().is_ok()
}

/// The epoch in the name of a record.
fn epoch_of(name: &str) -> Option<u64> {
    let epoch = name.strip_prefix("live-")?.strip_suffix(".json")?.parse().ok()?;
    (live_name(epoch) == name).then_some(epoch)
}

/// The parsed file, or `None` where there is none.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
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
        Ok(Version { format }) if READ.contains(&format) => {}
        Ok(Version { format }) => {
            return Err(damaged(
                path,
                format!(
                    "it has format {format}, this balancer writes {FORMAT} and reads {}",
                    READ.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
                ),
            ));
        }
        Err(error) => return Err(damaged(path, error.to_string())),
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error.to_string()))
}

/// Entries of a directory, sorted; none where there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
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

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing, path: path.to_owned(), source }
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;
