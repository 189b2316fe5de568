//! Texts of files that were read, for as long as their files are as they were.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::stamp::Stamp;
use crate::policy::{
    InputError, SourceText, Texts,
    input::{Known, gather_changed},
};

/// A file that changed as recently as this before it was read may have changed again without
/// another time of change: the kernel takes that from a clock that ticks every 10 ms at most, and
/// some file systems keep whole or even seconds only.
const MARGIN: Duration = Duration::from_secs(3);

/// What was read of each file.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    files: HashMap<PathBuf, File>,
    /// Which gathering this is: files that it does not meet are forgotten.
    round: u64,
    /// Seconds and nanoseconds: when it began.
    begun: (i64, i64),
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    /// When it was read its last change was long past: the next one will be told by its stamp.
    settled: bool,
    text: SourceText,
    round: u64,
}

impl Remembered {
    /// Reads the paths as [`crate::policy::gather`] does, but of files that are as they were
    /// nothing more than their metadata.
    pub(super) fn gather(&mut self, paths: &[PathBuf]) -> Result<Texts, InputError> {
        self.round += 1;
        // A clock before 1970 settles nothing, and every file is read each time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let long_past = now.saturating_sub(MARGIN);
        let seconds = i64::try_from(long_past.as_secs()).unwrap_or(i64::MAX);
        self.begun = (seconds, i64::from(long_past.subsec_nanos()));
        let texts = gather_changed(paths, self)?;
        let round = self.round;
        self.files.retain(|_, file| file.round == round);
        Ok(texts)
    }
}

impl Known for Remembered {
    fn text(&mut self, path: &Path, metadata: &fs::Metadata) -> Option<SourceText> {
        let file = self.files.get_mut(path)?;
        if !file.settled || file.stamp != Stamp::of(metadata) {
            return None;
        }
        file.round = self.round;
        Some(file.text.clone())
    }

    fn was_read(&mut self, path: &Path, metadata: &fs::Metadata, text: &SourceText) {
        if !metadata.is_file() {
            return;
        }
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let file = File {
            stamp: Stamp::of(metadata),
            settled: changed < self.begun,
            text: text.clone(),
            round: self.round,
        };
        self.files.insert(path.to_owned(), file);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::FileTimes, sync::Arc};

    use super::*;

    fn gathered(remembered: &mut Remembered, path: &Path) -> SourceText {
        let mut texts = remembered.gather(&[path.to_owned()]).expect("a file");
        texts.pop_back().expect("a text")
    }

    /// As if so much time had passed since the files changed.
    fn later(remembered: &mut Remembered) {
        for file in remembered.files.values_mut() {
            file.settled = true;
        }
    }

    #[test]
    fn file_that_changed_just_now_is_read_again_and_an_old_one_is_not() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a.yaml");
        fs::write(&path, "one").expect("a file");
        let mut remembered = Remembered::default();
        let first = gathered(&mut remembered, &path);
        let again = gathered(&mut remembered, &path);
        assert!(!Arc::ptr_eq(&first.text, &again.text), "its stamp says nothing yet");
        later(&mut remembered);
        let third = gathered(&mut remembered, &path);
        assert!(Arc::ptr_eq(&again.text, &third.text), "it was not read");
    }

    #[test]
    fn another_content_is_seen_whatever_its_size_and_time() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a.yaml");
        fs::write(&path, "one").expect("a file");
        let mut remembered = Remembered::default();
        assert_eq!(&*gathered(&mut remembered, &path).text, "one");
        later(&mut remembered);
        let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
        // The time of change has to be another one, as long past as the clock ticks.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "two").expect("a file");
        let file = fs::File::options().append(true).open(&path).expect("the file");
        file.set_times(FileTimes::new().set_modified(time)).expect("its old time");
        assert_eq!(&*gathered(&mut remembered, &path).text, "two");
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let root = tempfile::tempdir().expect("a directory");
        for name in ["a.yaml", "b.yaml"] {
            fs::write(root.path().join(name), "text").expect("a file");
        }
        let mut remembered = Remembered::default();
        let mut read = || {
            let texts = remembered.gather(&[root.path().to_owned()]).expect("a directory");
            (texts.len(), remembered.files.len())
        };
        assert_eq!(read(), (2, 2));
        fs::remove_file(root.path().join("a.yaml")).expect("the file");
        assert_eq!(read(), (1, 1));
    }
}
