//! Watching policy paths: which directories, and reading them at rest.
//!
//! A directory is watched by what it is now (device and inode), not by its name alone: one that
//! is replaced by a rename, or reached by a symbolic link that was flipped, is another directory
//! of the same name, and the old watch would stay with the old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tracing::{debug, warn};

use super::{
    bell::{Bell, Cause},
    remembered::Remembered,
    stamp::{Identity, Stamp, identity},
};
use crate::policy::{InputError, Texts};

/// Which names of a watched directory matter; `None`: all of them.
type Names = Option<BTreeSet<OsString>>;

/// What of the watched directories concerns policies. A directory that only holds the name of a
/// policy path holds other names too, such as a log that is written to all the time.
#[derive(Debug, Default)]
struct Concern(BTreeMap<PathBuf, Names>);

impl Concern {
    fn has(&self, path: &Path) -> bool {
        if self.0.contains_key(path) {
            return true;
        }
        let of_directory = path.parent().and_then(|directory| self.0.get(directory));
        match (of_directory, path.file_name()) {
            (Some(Some(names)), Some(name)) => names.contains(name),
            // All of it, or a directory that is not known yet.
            _ => true,
        }
    }
}

/// The paths that are watched, and the means.
pub(crate) struct Files {
    watcher: RecommendedWatcher,
    policies: Vec<PathBuf>,
    config: Option<PathBuf>,
    watched: BTreeMap<PathBuf, Identity>,
    /// What the watcher's thread judges events by.
    concern: Arc<RwLock<Concern>>,
    /// What was there at the last look.
    seen: BTreeMap<PathBuf, Stamp>,
    /// What was read.
    remembered: Remembered,
    /// Watches that failed, so that each is said once.
    failed: BTreeSet<PathBuf>,
}

/// How often a file that vanishes while its directory is read is looked for again.
const RETRIES: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_millis(5);

impl Files {
    /// Begins to watch nothing; see [`Files::follow`].
    pub(crate) fn new(bell: Arc<Bell>, config: Option<PathBuf>) -> notify::Result<Self> {
        let name = config.as_deref().and_then(Path::file_name).map(ToOwned::to_owned);
        let concern = Arc::new(RwLock::new(Concern::default()));
        let judge = Arc::clone(&concern);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event {
                // Reading opens and closes files too: that is no change.
                Ok(event) if is_reading(event.kind) => {}
                Ok(event) => {
                    let of_config = |path: &PathBuf| path.file_name() == name.as_deref();
                    if name.is_some() && event.paths.iter().any(of_config) {
                        bell.ring(Cause::Configuration);
                    }
                    // Whole whenever it can be read: it is only ever replaced.
                    let concern = judge.read().unwrap_or_else(PoisonError::into_inner);
                    if event.paths.is_empty() || event.paths.iter().any(|path| concern.has(path)) {
                        bell.ring(Cause::Files);
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot follow changes of files; they are looked for instead");
                    bell.ring(Cause::Files);
                }
            }
        })?;
        Ok(Self {
            watcher,
            policies: Vec::new(),
            config,
            watched: BTreeMap::new(),
            concern,
            seen: BTreeMap::new(),
            remembered: Remembered::default(),
            failed: BTreeSet::new(),
        })
    }

    /// From now on these paths.
    pub(crate) fn follow(&mut self, policies: &[PathBuf]) {
        self.policies = policies.to_vec();
    }

    /// Watches what is there now. True: something is other than at the last look.
    pub(crate) fn look(&mut self) -> bool {
        let mut place = Place::default();
        for path in &self.policies {
            place.add_parents(path);
            place.add(path, 0);
        }
        if let Some(path) = &self.config {
            place.watch_parents(path);
        }
        *self.concern.write().unwrap_or_else(PoisonError::into_inner) = place.concern;
        let gone: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, identity)| place.directories.get(*path) != Some(identity))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            // Fails where the directory was deleted: its watch went along.
            if let Err(error) = self.watcher.unwatch(&path) {
                debug!(directory = %path.display(), %error, "was not watched any more");
            }
            self.watched.remove(&path);
        }
        for (path, identity) in place.directories {
            if self.watched.contains_key(&path) {
                continue;
            }
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    debug!(directory = %path.display(), "watching");
                    self.failed.remove(&path);
                    self.watched.insert(path, identity);
                }
                Err(error) if self.failed.insert(path.clone()) => warn!(
                    directory = %path.display(),
                    %error,
                    "cannot be watched; changes are looked for every few seconds instead"
                ),
                Err(_) => {}
            }
        }
        let changed = self.seen != place.stamps;
        self.seen = place.stamps;
        changed
    }

    /// Reads the policy paths. A file that vanishes meanwhile is one more change that will be
    /// told: the directory is read again at once.
    pub(crate) fn read(&mut self) -> Result<Texts, InputError> {
        let mut tries = 0;
        loop {
            match self.remembered.gather(&self.policies) {
                Err(InputError::Vanished { .. }) if tries < RETRIES => {
                    tries += 1;
                    std::thread::sleep(RETRY_AFTER);
                    self.look();
                }
                read => return read,
            }
        }
    }

    /// Each policy path with what keeps it from being read, if anything does.
    pub(crate) fn paths(&self) -> Vec<(PathBuf, Option<String>)> {
        self.policies.iter().map(|path| (path.clone(), unreadable(path))).collect()
    }
}

/// Why a path cannot be read.
fn unreadable(path: &Path) -> Option<String> {
    let looked = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path).map(drop),
        Ok(_) => fs::File::open(path).map(drop),
        Err(error) => Err(error),
    };
    looked.err().map(|error| match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        _ => format!("cannot be read: {error}"),
    })
}

fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

/// What is below the paths.
#[derive(Default)]
struct Place {
    directories: BTreeMap<PathBuf, Identity>,
    concern: Concern,
    stamps: BTreeMap<PathBuf, Stamp>,
}

/// Deeper than any tree that is read.
const DEPTH_MAX: usize = 64;

impl Place {
    /// The directory that holds the name, and the one that holds what a link points at, with
    /// these names.
    fn add_parents(&mut self, path: &Path) {
        for (parent, name) in self.watch_parents(path) {
            if let Some(names) = self.concern.0.entry(parent).or_insert_with(|| Some([].into())) {
                names.insert(name);
            }
        }
    }

    /// As [`Place::add_parents`], for what is no policy; returns them and the names in them.
    fn watch_parents(&mut self, path: &Path) -> Vec<(PathBuf, OsString)> {
        let real = fs::canonicalize(path).ok();
        let mut parents = Vec::new();
        for path in [Some(path), real.as_deref()].into_iter().flatten() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            if let Ok(metadata) = fs::metadata(parent)
                && metadata.is_dir()
            {
                self.directories.insert(parent.to_owned(), identity(&metadata));
                self.concern.0.entry(parent.to_owned()).or_insert_with(|| Some([].into()));
                parents.push((parent.to_owned(), name.to_owned()));
            }
        }
        parents
    }

    fn add(&mut self, path: &Path, depth: usize) {
        // What cannot be looked at is told when it is read.
        let Ok(metadata) = fs::metadata(path) else { return };
        self.stamps.insert(path.to_owned(), Stamp::of(&metadata));
        if !metadata.is_dir() || depth > DEPTH_MAX {
            return;
        }
        self.directories.insert(path.to_owned(), identity(&metadata));
        // A directory whose every name matters was walked already.
        let walked = matches!(self.concern.0.insert(path.to_owned(), None), Some(None));
        if walked && depth > 0 {
            return;
        }
        let Ok(entries) = fs::read_dir(path) else { return };
        for entry in entries.flatten() {
            // As the reader does; a link that leads into a hidden directory is followed.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if linked {
                self.add_parents(&entry.path());
            }
            self.add(&entry.path(), depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_beside_the_policies_is_no_concern_and_their_directory_is() {
        let root = tempfile::tempdir().expect("a directory");
        let (policies, nested) = (root.path().join("policies"), root.path().join("policies/a"));
        fs::create_dir_all(&nested).expect("directories");
        let file = root.path().join("one.yaml");
        fs::write(&file, "").expect("a file");
        let mut place = Place::default();
        for path in [&policies, &file] {
            place.add_parents(path);
            place.add(path, 0);
        }
        place.watch_parents(&root.path().join("config.yaml"));
        let concern = place.concern;
        for path in [&policies, &file, &nested, &policies.join("new.yaml"), &nested.join("b.yaml")]
        {
            assert!(concern.has(path), "{}", path.display());
        }
        for name in ["agent.log", "config.yaml"] {
            assert!(!concern.has(&root.path().join(name)), "{name}");
        }
    }

    #[test]
    fn where_a_link_leads_only_the_name_it_leads_to_matters() {
        let root = tempfile::tempdir().expect("a directory");
        let (policies, elsewhere) = (root.path().join("policies"), root.path().join("elsewhere"));
        fs::create_dir_all(&policies).expect("a directory");
        fs::create_dir_all(&elsewhere).expect("a directory");
        fs::write(elsewhere.join("real.yaml"), "").expect("a file");
        std::os::unix::fs::symlink(elsewhere.join("real.yaml"), policies.join("link.yaml"))
            .expect("a link");
        let mut place = Place::default();
        place.add(&policies, 0);
        let real = fs::canonicalize(&elsewhere).expect("a path");
        assert!(place.concern.has(&real.join("real.yaml")));
        assert!(!place.concern.has(&real.join("other.yaml")));
    }
}
