//! One record after the other: what is as in the last one is not written again.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    LIVE_FORMAT, Store, StoreError, TEXTS,
    files::{Outlives, failed, hash_name, live_name, old_live_name, remove},
    form::{ChangedText, LiveFile, ProtocolRow, Rows, TextRow, assignment_rows},
};
use crate::{
    policy::{SourceText, Texts},
    resolve::{ResolveSettings, VipAssignments},
};

/// Texts that may differ from the list that a record names, before it gets a list of its own.
const CHANGED_MAX: usize = 256;

/// Writes the records of one instance, as only the holder of the lock on its pin directory may:
/// what it has written or verified it takes to be there.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    bpffs: PathBuf,
    /// What `vips.json` says, once this process has looked.
    assigned: Option<VipAssignments>,
    /// `None`: nothing was recorded yet, or the last attempt failed.
    last: Option<Last>,
    /// Records before the last one.
    superseded: Vec<PathBuf>,
    /// Texts that the last record does not name.
    dropped: Vec<u128>,
    /// Nothing is left of earlier processes.
    alone: bool,
}

/// What was recorded last.
#[derive(Debug, Default)]
struct Last {
    epoch: u64,
    file: Option<LiveFile>,
    texts: Texts,
    /// By index, as `texts`; `None`: the place of a text that is gone.
    hashes: Vec<Option<u128>>,
    /// How often each text is named.
    uses: HashMap<u128, u32>,
    /// The list of texts that the record names, and by index what differs from it.
    list: Option<u128>,
    changed: BTreeMap<u32, Option<TextRow>>,
    assigned: Option<u128>,
}

impl Recorder {
    /// Writes to `store` what the instance pinned at `bpffs` is made of.
    pub fn new(store: Store, bpffs: &Path) -> Self {
        Self {
            store,
            bpffs: bpffs.to_owned(),
            assigned: None,
            last: None,
            superseded: Vec::new(),
            dropped: Vec::new(),
            alone: false,
        }
    }

    /// Where it writes.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Records what `epoch` is made of: `texts`, resolved with `settings`, whose assignments are
    /// not looked at. `assigned` are those that came out of it; `None`: the ones recorded last.
    /// Call it before the epoch is published.
    ///
    /// # Errors
    /// A file cannot be written, what is there is damaged, or the directory belongs to an
    /// instance pinned elsewhere.
    pub fn save(
        &mut self,
        epoch: u64,
        settings: &ResolveSettings,
        assigned: Option<&VipAssignments>,
        texts: &Texts,
    ) -> Result<(), StoreError> {
        let known = match self.assigned.take() {
            Some(known) => known,
            None => self.store.assignments()?,
        };
        // Whatever fails from here on, the next record is written anew.
        let mut last = match self.last.take() {
            Some(last) => last,
            None => {
                self.store.check_owner(&self.bpffs)?;
                Last::default()
            }
        };
        let known = match assigned {
            Some(assigned) if *assigned != known => {
                self.store.save_assignments(assigned)?;
                last.assigned.take().into_iter().for_each(|old| self.drop_text(&mut last, old));
                assigned.clone()
            }
            _ => known,
        };
        if last.assigned.is_none() {
            last.assigned = Some(self.save_rows(&mut last, &assignment_rows(&known))?);
        }
        self.assigned = Some(known);
        self.save_texts(&mut last, texts)?;
        if last.list.is_none() {
            self.save_list(&mut last)?;
        }
        last.file = Some(LiveFile {
            format: LIVE_FORMAT,
            bpffs: self.bpffs.clone(),
            vips4: settings.vips4,
            vips6: settings.vips6,
            zone: settings.zone.clone(),
            no_route: settings.no_route,
            gateway_controller: settings.gateway_controller.clone(),
            allow_plain: settings.allow_plain,
            protocols: settings.protocols.iter().map(ProtocolRow::of).collect(),
            names: settings.names.clone(),
            assigned: Rows::Kept(last.assigned.map(hash_name).unwrap_or_default()),
            texts: Rows::Here(Vec::new()),
            changed: Vec::new(),
        });
        self.write(last, epoch)
    }

    /// Records that `to` is made of what `from` was. Call it before `to` is published.
    ///
    /// # Errors
    /// The record of `from` is missing, or a file cannot be written.
    pub fn save_again(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        if let Some(last) = self.last.take_if(|last| last.epoch == from) {
            return self.write(last, to);
        }
        self.last = None;
        let store = &self.store;
        let paths = [live_name(from, &store.boot), old_live_name(from)];
        let mut paths = paths.map(|name| store.root.join(name)).into_iter();
        let found = paths.find(|path| path.exists()).unwrap_or_default();
        let bytes = fs::read(&found).map_err(|source| failed("read", &found, source))?;
        store.write(&store.root.join(live_name(to, &store.boot)), &bytes, Outlives::Process)
    }

    /// Removes what only records of other epochs need, now that `epoch` is live.
    ///
    /// # Errors
    /// A file cannot be read, written or removed.
    pub fn settle(&mut self, epoch: u64) -> Result<(), StoreError> {
        if let Some(mut last) = self.last.take_if(|last| last.changed.len() > CHANGED_MAX) {
            if let Some(list) = last.list.take() {
                self.drop_text(&mut last, list);
            }
            self.save_list(&mut last)?;
            let same = last.epoch;
            self.write(last, same)?;
        }
        if !self.alone || self.last.is_none() {
            self.store.forget(|record, _| record == epoch)?;
            (self.superseded, self.dropped) = Default::default();
            self.alone = true;
            return Ok(());
        }
        for path in std::mem::take(&mut self.superseded) {
            remove(&path)?;
        }
        for hash in std::mem::take(&mut self.dropped) {
            if self.last.as_ref().is_some_and(|last| !last.uses.contains_key(&hash)) {
                remove(&self.store.root.join(TEXTS).join(hash_name(hash)))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, mut last: Last, epoch: u64) -> Result<(), StoreError> {
        let Some(file) = &mut last.file else {
            let nothing = io::Error::other("nothing was recorded before");
            return Err(failed("write", &self.store.root, nothing));
        };
        file.texts = Rows::Kept(last.list.map(hash_name).unwrap_or_default());
        file.changed = last
            .changed
            .iter()
            .map(|(index, text)| ChangedText { index: *index, text: text.clone() })
            .collect();
        let name = live_name(epoch, &self.store.boot);
        self.store.write_json(&name, file, Outlives::Process)?;
        let path = self.store.root.join(name);
        self.superseded.retain(|old| *old != path);
        if last.epoch != epoch {
            let before = self.store.root.join(live_name(last.epoch, &self.store.boot));
            self.superseded.push(before);
        }
        last.epoch = epoch;
        self.last = Some(last);
        Ok(())
    }

    /// Writes the texts that are new. A text that this process has written or compared is not
    /// looked at again.
    fn save_texts(&mut self, last: &mut Last, texts: &Texts) -> Result<(), StoreError> {
        if last.list.is_some() && last.texts.ptr_eq(texts) {
            return Ok(());
        }
        let before = std::mem::replace(&mut last.texts, texts.clone());
        let mut before = before.iter();
        for (index, text) in texts.iter().enumerate() {
            if before.next().is_some_and(|before| same(before, text)) {
                continue;
            }
            self.save_text_at(last, index, Some(text).filter(|text| !is_gone(text)))?;
        }
        for index in texts.len()..last.hashes.len() {
            self.save_text_at(last, index, None)?;
        }
        Ok(())
    }

    fn save_text_at(
        &mut self,
        last: &mut Last,
        index: usize,
        text: Option<&SourceText>,
    ) -> Result<(), StoreError> {
        let hash = text.map(|text| self.save_text(last, &text.text)).transpose()?;
        if last.hashes.len() <= index {
            last.hashes.resize(index + 1, None);
        }
        let before = std::mem::replace(&mut last.hashes[index], hash);
        before.into_iter().for_each(|old| self.drop_text(last, old));
        if last.list.is_some() {
            let row = text.zip(hash).map(|(text, hash)| row(text, hash));
            // No set has as many texts as a u32 has numbers: spans name them by one.
            last.changed.insert(index as u32, row);
        }
        Ok(())
    }

    /// Writes the list of all texts as a text of its own.
    fn save_list(&mut self, last: &mut Last) -> Result<(), StoreError> {
        let rows: Vec<TextRow> = last
            .texts
            .iter()
            .zip(&last.hashes)
            .map(|(text, hash)| match hash {
                Some(hash) => row(text, *hash),
                None => TextRow { name: String::new(), hash: String::new() },
            })
            .collect();
        last.list = Some(self.save_rows(last, &rows)?);
        last.changed.clear();
        Ok(())
    }

    fn save_rows<T: Serialize>(&self, last: &mut Last, rows: &[T]) -> Result<u128, StoreError> {
        let text = serde_json::to_string(rows)
            .map_err(|error| failed("write", &self.store.root, error.into()))?;
        self.save_text(last, &text)
    }

    fn save_text(&self, last: &mut Last, text: &str) -> Result<u128, StoreError> {
        let hash = super::hash_of(text);
        if !last.uses.contains_key(&hash) {
            self.store.save_text(hash, text)?;
        }
        *last.uses.entry(hash).or_insert(0) += 1;
        Ok(hash)
    }

    fn drop_text(&mut self, last: &mut Last, hash: u128) {
        match last.uses.get_mut(&hash) {
            Some(uses) if *uses > 1 => *uses -= 1,
            _ => {
                last.uses.remove(&hash);
                self.dropped.push(hash);
            }
        }
    }
}

fn row(text: &SourceText, hash: u128) -> TextRow {
    TextRow { name: text.name.clone(), hash: hash_name(hash) }
}

/// Whether this is the place of a text that is gone.
fn is_gone(text: &SourceText) -> bool {
    text.name.is_empty() && text.text.is_empty()
}

/// Whether two texts are the same one. Lists of texts share what they have in common.
fn same(before: &SourceText, text: &SourceText) -> bool {
    std::ptr::eq(before, text) || Arc::ptr_eq(&before.text, &text.text) && before.name == text.name
}

#[cfg(test)]
mod tests;
