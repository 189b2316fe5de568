//! What a record after a change costs, and that it says the same as one of the whole.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

use super::{
    super::{Live, TEXTS, files::entries, hash_name, hash_of, tests::live},
    CHANGED_MAX, Recorder, Store,
};
use crate::policy::{SourceText, Texts};

fn text(name: &str, text: &str) -> SourceText {
    SourceText { name: name.to_owned(), text: text.into() }
}

fn of(texts: &Texts) -> Live {
    Live { texts: texts.clone(), ..live(&[]) }
}

fn save(recorder: &mut Recorder, epoch: u64, texts: &Texts) {
    let live = of(texts);
    recorder.save(epoch, &live.settings, Some(&live.settings.assigned), texts).unwrap();
}

fn texts_in(dir: &Path) -> BTreeSet<String> {
    let paths = entries(&dir.join(TEXTS)).unwrap();
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn recorder(dir: &Path) -> Recorder {
    Recorder::new(Store::open(dir).unwrap(), &live(&[]).bpffs)
}

/// What becomes of the text at an index: gone, or another one.
fn edits() -> impl Strategy<Value = (usize, Option<u8>)> {
    (0usize..8, prop::option::weighted(0.8, 0u8..5))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn record_of_a_change_says_what_one_of_the_whole_says(
        turns in prop::collection::vec((prop::collection::vec(edits(), 0..4), 0u8..6), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = recorder(dir.path());
        let store = ours.store().clone();
        let mut texts = Texts::new();
        let mut epoch = 0;
        for (edits, fate) in turns {
            for (index, content) in edits {
                while texts.len() <= index {
                    texts.push_back(text("", ""));
                }
                texts.set(index, match content {
                    Some(n) => text(&format!("{index}.yaml"), &format!("kind: {n}\n")),
                    None => text("", ""),
                });
            }
            let there: Texts =
                texts.iter().filter(|text| !text.name.is_empty()).cloned().collect();
            match fate {
                // Published.
                0..=2 => {
                    epoch += 1;
                    save(&mut ours, epoch, &texts);
                    ours.settle(epoch).unwrap();
                }
                // Recorded, but the publish failed; the next one is of the same number.
                3 => {
                    save(&mut ours, epoch + 1, &texts);
                    continue;
                }
                // A sweep.
                4 if epoch > 0 => {
                    save(&mut ours, epoch, &texts);
                    ours.save_again(epoch, epoch + 1).unwrap();
                    epoch += 1;
                    ours.settle(epoch).unwrap();
                }
                // Another process.
                _ => {
                    epoch += 1;
                    ours = recorder(dir.path());
                    save(&mut ours, epoch, &texts);
                    ours.settle(epoch).unwrap();
                }
            }
            prop_assert_eq!(store.live(epoch).unwrap(), Some(of(&there)));
            let records = entries(dir.path()).unwrap();
            prop_assert_eq!(records.len(), 3, "{:?}", records);
            let named = store.records().unwrap().remove(0);
            let rows = store.text_rows(&named.0, &named.2).unwrap();
            let mut expected: BTreeSet<String> = rows.into_iter().map(|row| row.hash).collect();
            expected.extend(named.2.texts.kept());
            expected.extend(named.2.assigned.kept());
            prop_assert_eq!(texts_in(dir.path()), expected);
        }
    }
}

#[test]
fn record_of_a_change_writes_the_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut ours = recorder(dir.path());
    let mut texts: Texts =
        (0..2000).map(|n| text(&format!("{n}.yaml"), &format!("number: {n}\n"))).collect();
    save(&mut ours, 1, &texts);
    ours.settle(1).unwrap();
    let before = texts_in(dir.path());
    assert_eq!(before.len(), 2002);
    // What was written once is not looked at again: this would be noticed.
    fs::remove_file(dir.path().join(TEXTS).join(hash_name(hash_of("number: 7\n")))).unwrap();
    texts.set(1000, text("1000.yaml", "number: -1\n"));
    save(&mut ours, 2, &texts);
    let new: Vec<String> = texts_in(dir.path()).difference(&before).cloned().collect();
    assert_eq!(new, [hash_name(hash_of("number: -1\n"))]);
    let record = fs::metadata(ours.store().root.join(super::live_name(2, &ours.store().boot)));
    assert!(record.unwrap().len() < 2000, "the record names the list and the change");
    ours.settle(2).unwrap();
    assert!(!texts_in(dir.path()).contains(&hash_name(hash_of("number: 1000\n"))));
}

#[test]
fn many_changes_make_a_list_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut ours = recorder(dir.path());
    let count = CHANGED_MAX + 10;
    let all = |version: usize| -> Texts {
        (0..count).map(|n| text(&format!("{n}.yaml"), &format!("{n} {version}\n"))).collect()
    };
    save(&mut ours, 1, &all(0));
    ours.settle(1).unwrap();
    save(&mut ours, 2, &all(1));
    assert_eq!(ours.store().live(2).unwrap(), Some(of(&all(1))));
    assert_eq!(ours.store().records().unwrap()[1].2.changed.len(), count);
    ours.settle(2).unwrap();
    assert!(ours.store().records().unwrap()[0].2.changed.is_empty());
    assert_eq!(ours.store().live(2).unwrap(), Some(of(&all(1))));
    assert_eq!(texts_in(dir.path()).len(), count + 2);
}
