//! The state directory: VIP assignments, and the texts that the live set was made of.
//!
//! ```text
//! vips.json              service → allocated VIP (decision D2); outlives unload and reboot
//! texts/HASH             policy texts and parts of records, named by their content
//! live-EPOCH-BOOT.json   which texts and settings the epoch was made of
//! ```
//!
//! Every file is written beside its place and renamed into it, so that a reader meets the old
//! or the new one. A record is written before its epoch is published and those of other epochs
//! are removed after: whichever epoch a crash leaves, its record is there. Names in `show` and
//! `explain` come from compiling the recorded texts again, so there is no second table of names
//! that could drift from the maps.
//!
//! The maps do not outlive the boot, and a record names it: what an earlier boot left, in whatever
//! state a power cut left that, is removed unread. So packets wait for the disk only where VIPs
//! were allocated. What a small change costs does not depend on the size of the set
//! ([`Recorder`], decision 012).
//!
//! Writers hold the lock on the pin directory; readers need none.
#![forbid(unsafe_code)]

mod error;
mod files;
mod form;
mod record;

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

pub use error::StoreError;
pub use record::Recorder;

use files::{
    Outlives, damaged, entries, failed, hash_name, hash_of, is_hash, is_unfinished, live_name,
    old_live_name, read_json, record_of, remove,
};
use form::{AssignmentRow, AssignmentsFile, LiveFile, ProtocolRow, Rows, TextRow, assignment_rows};

use crate::{
    policy::{SourceText, Texts},
    resolve::{ResolveSettings, VipAssignments},
};

/// Version of `vips.json`; the first has rows of services by their tag alone. A file of a version
/// that is not known is refused, never guessed at.
const ASSIGNMENTS_FORMAT: u32 = 2;
/// Version of records. The first is as that of `vips.json` and knows no names, the third has its
/// long parts among the texts.
const LIVE_FORMAT: u32 = 3;
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
    /// This boot, as names of records have it.
    boot: String,
}

impl Store {
    /// The state directory at `state`, which need not exist yet: reading then finds nothing,
    /// and the first save makes it, for its owner alone.
    ///
    /// # Errors
    /// The path is there and not a directory, or cannot be looked at; or the kernel does not say
    /// which boot this is.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        match fs::metadata(state) {
            Ok(meta) if !meta.is_dir() => {
                return Err(StoreError::NotADirectory { path: state.to_owned() });
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("open", state, source));
            }
            _ => {}
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(|source| failed("read", path, source))?;
        Ok(Self { root: state.to_owned(), boot: boot.trim().replace('-', "") })
    }

    /// VIPs allocated so far; none where nothing was saved.
    ///
    /// # Errors
    /// The file cannot be read or is damaged. Taking it for empty would move VIPs that clients
    /// have resolved.
    pub fn assignments(&self) -> Result<VipAssignments, StoreError> {
        let path = self.root.join(ASSIGNMENTS);
        let Some(file) = read_json::<AssignmentsFile>(&path, ASSIGNMENTS_FORMAT)? else {
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

    /// Keeps `assignments` for later loads.
    ///
    /// # Errors
    /// The directory or file cannot be written.
    fn save_assignments(&self, assignments: &VipAssignments) -> Result<(), StoreError> {
        let file =
            AssignmentsFile { format: ASSIGNMENTS_FORMAT, vips: assignment_rows(assignments) };
        self.write_json(ASSIGNMENTS, &file, Outlives::PowerCut)
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
        let names = [live_name(epoch, &self.boot), old_live_name(epoch)];
        let mut found = None;
        for name in names {
            let path = self.root.join(name);
            found = read_json::<LiveFile>(&path, LIVE_FORMAT)?.map(|file| (path, file));
            if found.is_some() {
                break;
            }
        }
        let Some((path, file)) = found else { return Ok(None) };
        let texts = self
            .text_rows(&path, &file)?
            .into_iter()
            .map(|row| Ok(SourceText { text: self.text(&row.hash)?, name: row.name }))
            .collect::<Result<_, StoreError>>()?;
        let assigned = self.rows(&path, file.assigned)?;
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
                assigned: assigned.into_iter().map(AssignmentRow::into_assignment).collect(),
            },
            texts,
        }))
    }

    /// Rows of a record, which may be kept among the texts.
    fn rows<T: DeserializeOwned>(
        &self,
        record: &Path,
        rows: Rows<T>,
    ) -> Result<Vec<T>, StoreError> {
        match rows {
            Rows::Here(rows) => Ok(rows),
            Rows::Kept(hash) => serde_json::from_str(&self.text(&hash)?)
                .map_err(|error| damaged(record, format!("text {hash}: {error}"))),
        }
    }

    /// The texts that a record names, in their order.
    fn text_rows(&self, path: &Path, record: &LiveFile) -> Result<Vec<TextRow>, StoreError> {
        let first = self.rows(path, record.texts.clone())?;
        let mut rows: Vec<Option<TextRow>> = first.into_iter().map(Some).collect();
        for changed in &record.changed {
            let at = changed.index as usize;
            if at >= rows.len() {
                rows.resize_with(at + 1, || None);
            }
            rows[at].clone_from(&changed.text);
        }
        Ok(rows.into_iter().flatten().filter(|row| !row.hash.is_empty()).collect())
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
                kept_texts.extend(self.text_rows(&path, &record)?.into_iter().map(|row| row.hash));
                kept_texts
                    .extend([record.texts.kept(), record.assigned.kept()].into_iter().flatten());
            } else {
                remove(&path)?;
            }
        }
        // Only names that this file gives: whatever else lies there is not ours.
        let texts = entries(&self.root.join(TEXTS))?;
        for path in entries(&self.root)?.iter().chain(&texts) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_unfinished(name)
                || self.is_of_another_boot(name)
                || (is_hash(name) && !kept_texts.contains(name))
            {
                remove(path)?;
            }
        }
        Ok(())
    }

    /// Whether this is the name of a record of maps that are no more.
    fn is_of_another_boot(&self, name: &str) -> bool {
        record_of(name).and_then(|(_, boot)| boot).is_some_and(|boot| boot != self.boot)
    }

    /// Every record with its epoch, sorted by path. Those of another boot are not looked at.
    fn records(&self) -> Result<Vec<(PathBuf, u64, LiveFile)>, StoreError> {
        let mut records = Vec::new();
        for path in entries(&self.root)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some((epoch, _)) = record_of(name) else { continue };
            if self.is_of_another_boot(name) {
                continue;
            }
            if let Some(record) = read_json(&path, LIVE_FORMAT)? {
                records.push((path, epoch, record));
            }
        }
        Ok(records)
    }

    /// Writes a text under the `hash` of its content, where it is not there already.
    fn save_text(&self, hash: u128, text: &str) -> Result<(), StoreError> {
        let path = self.root.join(TEXTS).join(hash_name(hash));
        match fs::read_to_string(&path) {
            Ok(there) if there == text => return Ok(()),
            // Cut short by a full disk, say: written again below.
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            }
            Err(source) => return Err(failed("read", &path, source)),
        }
        self.write(&path, text.as_bytes(), Outlives::Process)
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
        if hash_name(hash_of(&text)) != hash {
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
                if outlives == Outlives::PowerCut { file.sync_all() } else { Ok(()) }
            })
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| match outlives {
                Outlives::PowerCut => fs::File::open(directory)?.sync_all(),
                Outlives::Process => Ok(()),
            });
        written.map_err(|source| {
            // The write's error is the one to report; what may be left is removed by `forget`.
            let _ = fs::remove_file(&beside);
            failed("write", path, source)
        })
    }
}

#[cfg(test)]
mod tests;
