use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::resolve::{
    AssignedVip, DestinationKind, Names, NoRoute, ProtocolRule, VipOwner, VipProtocol,
};
use std::net::Ipv4Addr;

fn assignments() -> VipAssignments {
    let vip = AssignedVip {
        v4: Some(Ipv4Addr::new(240, 0, 0, 3)),
        v6: Some("fd62:616c::3".parse().unwrap()),
    };
    [(VipOwner::tags("default", "redis"), vip)].into_iter().collect()
}

fn names_of_hosts() -> Names {
    let mut names = Names::default();
    names.insert("api.example.com", ["192.0.2.7".parse().unwrap()], None);
    names.insert("gone.example.com", [], Some("no such name".to_owned()));
    names
}

pub(super) fn live(texts: &[(&str, &str)]) -> Live {
    Live {
        bpffs: PathBuf::from("/sys/fs/bpf/test"),
        settings: ResolveSettings {
            vips4: (Ipv4Addr::new(240, 0, 0, 0), 8),
            vips6: ("fd62:616c::".parse().unwrap(), 64),
            zone: Some("east".to_owned()),
            no_route: NoRoute::Deny,
            gateway_controller: "example.com/node".to_owned(),
            allow_plain: true,
            protocols: vec![ProtocolRule {
                mesh: "default".to_owned(),
                service: "dns".to_owned(),
                port: std::num::NonZeroU16::new(53),
                protocol: VipProtocol::Udp,
            }],
            names: names_of_hosts(),
            assigned: assignments(),
        },
        texts: texts
            .iter()
            .map(|(name, text)| SourceText { name: (*name).to_owned(), text: (*text).into() })
            .collect(),
    }
}

fn save_live(store: &Store, epoch: u64, live: &Live) -> Result<(), StoreError> {
    let mut recorder = Recorder::new(store.clone(), &live.bpffs);
    recorder.save(epoch, &live.settings, Some(&live.settings.assigned), &live.texts)
}

fn forget_others(store: &Store, epoch: u64) {
    store.forget(|record, _| record == epoch).unwrap();
}

fn save_assignments(store: &Store, assignments: &VipAssignments) -> Result<(), StoreError> {
    let live = Live {
        settings: ResolveSettings { assigned: assignments.clone(), ..live(&[]).settings },
        ..live(&[])
    };
    save_live(store, 1, &live)
}

fn names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for path in entries(root).unwrap() {
        if path.is_dir() {
            names.extend(entries(&path).unwrap());
        }
        names.push(path);
    }
    names.iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
}

#[test]
fn missing_directory_reads_as_empty_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    assert_eq!(store.assignments().unwrap(), VipAssignments::new());
    assert_eq!(store.live(3).unwrap(), None);
    forget_others(&store, 3);
    assert!(!dir.path().join("state").exists());
}

#[test]
fn what_is_saved_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a/b")).unwrap();
    save_assignments(&store, &assignments()).unwrap();
    assert_eq!(store.assignments().unwrap(), assignments());
    let live = live(&[("a.yaml", "kind: a\n"), ("-", "ü\n"), ("b.yaml", "kind: a\n")]);
    save_live(&store, 7, &live).unwrap();
    assert_eq!(store.live(7).unwrap(), Some(live));
    for made in ["a", "a/b", "a/b/texts"] {
        let mode = fs::metadata(dir.path().join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
}

#[test]
fn equal_texts_are_stored_once_and_nothing_is_left_beside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    save_live(&store, 1, &live(&[("a", "same"), ("b", "same")])).unwrap();
    let names = names(dir.path());
    // Theirs, that of the list of texts and that of the assignments.
    assert_eq!(names.iter().filter(|name| name.starts_with("texts/")).count(), 3, "{names:?}");
}

#[test]
fn forgetting_keeps_the_texts_that_the_kept_epoch_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    save_live(&store, 1, &live(&[("a", "shared"), ("b", "old")])).unwrap();
    save_live(&store, 2, &live(&[("a", "shared"), ("b", "new")])).unwrap();
    fs::write(dir.path().join("texts/README"), "not ours").unwrap();
    fs::write(dir.path().join(".vips.json.4711"), "a writer was killed").unwrap();
    forget_others(&store, 2);
    assert_eq!(store.live(1).unwrap(), None);
    assert_eq!(store.live(2).unwrap(), Some(live(&[("a", "shared"), ("b", "new")])));
    // Two texts, the list of them, the assignments, and what is not ours.
    assert_eq!(entries(&dir.path().join("texts")).unwrap().len(), 5);
    save_assignments(&store, &assignments()).unwrap();
    store.forget_instance(Path::new("/sys/fs/bpf/other")).unwrap();
    assert!(store.live(2).unwrap().is_some());
    store.forget_instance(Path::new("/sys/fs/bpf/test")).unwrap();
    assert_eq!(names(dir.path()), ["texts/README", "texts", "vips.json"]);
}

#[test]
fn assignments_of_the_first_format_are_those_of_services_by_tag() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = r#"{"format":1,"vips":[{"mesh":"default","service":"redis",
                    "ipv4":"240.0.0.3","ipv6":"fd62:616c::3"}]}"#;
    fs::write(dir.path().join(ASSIGNMENTS), first).unwrap();
    assert_eq!(store.assignments().unwrap(), assignments());
}

#[test]
fn assignments_tell_kinds_of_one_name_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut both = assignments();
    let vip = AssignedVip { v4: Some(Ipv4Addr::new(240, 0, 0, 4)), v6: None };
    let owner =
        VipOwner { kind: DestinationKind::MeshService, ..VipOwner::tags("default", "redis") };
    both.insert(owner, vip);
    save_assignments(&store, &both).unwrap();
    assert_eq!(store.assignments().unwrap(), both);
}

#[test]
fn damaged_assignments_are_refused_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let twice = r#"{"format":1,"vips":[{"mesh":"m","service":"a","ipv4":"240.0.0.1"},
                                       {"mesh":"m","service":"b","ipv4":"240.0.0.1"}]}"#;
    for (text, expected) in [
        ("", "EOF"),
        ("{\"format\": 3, \"vipses\": []}", "format 3"),
        ("{\"format\": 1, \"vips\": [], \"more\": 1}", "unknown field"),
        (twice, "shares its VIP"),
    ] {
        let path = dir.path().join(ASSIGNMENTS);
        fs::write(&path, text).unwrap();
        let error = save_assignments(&store, &assignments()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains("mv "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn changed_text_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    save_live(&store, 1, &live(&[("a", "before")])).unwrap();
    let text = dir.path().join(TEXTS).join(hash_name(hash_of("before")));
    fs::write(&text, "after").unwrap();
    let error = store.live(1).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    // The next save puts it right.
    save_live(&store, 2, &live(&[("a", "before")])).unwrap();
    assert!(store.live(1).unwrap().is_some());
}

#[test]
fn directory_of_another_instance_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    save_live(&store, 1, &live(&[])).unwrap();
    let other = Live { bpffs: PathBuf::from("/sys/fs/bpf/other"), ..live(&[]) };
    let error = save_live(&store, 2, &other).unwrap_err();
    assert!(error.to_string().contains("/sys/fs/bpf/test"), "{error}");
    assert!(error.hint().unwrap().contains("--state"));
}

#[test]
fn file_in_the_place_of_the_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Store::open(file.path()), Err(StoreError::NotADirectory { .. })));
}

#[test]
fn record_of_another_boot_is_removed_unread() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let torn = dir.path().join(live_name(7, &"0".repeat(32)));
    fs::write(&torn, "{\"format\": 3, \"bpf").unwrap();
    assert_eq!(store.live(7).unwrap(), None);
    store.check_owner(Path::new("/sys/fs/bpf/test")).unwrap();
    let live = live(&[("a", "text")]);
    save_live(&store, 1, &live).unwrap();
    forget_others(&store, 1);
    assert!(!torn.exists());
    assert_eq!(store.live(1).unwrap(), Some(live));
    // The same in this boot is not taken for nothing.
    fs::write(dir.path().join(live_name(7, &store.boot)), "{\"format\": 3, \"bpf").unwrap();
    assert!(matches!(store.live(7), Err(StoreError::Damaged { .. })));
}

#[test]
fn record_of_the_second_format_is_read_and_goes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut expected = live(&[("a", "one"), ("b", "two")]);
    save_live(&store, 1, &expected).unwrap();
    let row = |name: &str, text: &str| serde_json::json!({"name": name, "hash": hash_name(hash_of(text))});
    let old = serde_json::json!({
        "format": 2, "bpffs": "/sys/fs/bpf/test", "vips4": ["240.0.0.0", 8],
        "vips6": ["fd62:616c::", 64], "zone": "east", "no_route": "deny",
        "gateway_controller": "example.com/node", "allow_plain": true,
        "assigned": [{"mesh": "default", "service": "redis", "ipv4": "240.0.0.3",
                      "ipv6": "fd62:616c::3"}],
        "texts": [row("a", "one"), row("b", "two")],
    });
    let path = dir.path().join(old_live_name(9));
    fs::write(&path, old.to_string()).unwrap();
    (expected.settings.names, expected.settings.protocols) = (Names::default(), Vec::new());
    assert_eq!(store.live(9).unwrap(), Some(expected.clone()));
    let mut recorder = Recorder::new(store.clone(), &expected.bpffs);
    recorder.save_again(9, 10).unwrap();
    recorder.settle(10).unwrap();
    assert!(!path.exists());
    assert_eq!(store.live(10).unwrap(), Some(expected));
}
