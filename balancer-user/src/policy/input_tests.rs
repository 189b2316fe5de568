use std::os::unix::{ffi::OsStrExt, fs::symlink};

use super::*;

fn names(texts: &Texts, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    texts
        .iter()
        .map(|text| text.name.strip_prefix(&root).unwrap_or(&text.name).to_owned())
        .collect()
}

fn write(root: &Path, name: &str, body: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, body).unwrap();
    path
}

fn gathered(paths: &[PathBuf]) -> Result<Texts, InputError> {
    gather_from(paths, &mut io::empty(), &mut ())
}

/// The message of the error that these inputs are refused with.
fn refusal(paths: &[PathBuf]) -> String {
    gathered(paths).unwrap_err().to_string()
}

#[test]
fn directories_are_searched_recursively_and_sorted() {
    let root = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", "c/d.json", "c/e.txt", "notes.md", "a/z.yaml"] {
        write(root.path(), name, "a: 1\n");
    }
    let texts = gathered(&[root.path().to_owned()]).unwrap();
    assert_eq!(names(&texts, root.path()), ["a/z.yaml", "a.yml", "b.yaml", "c/d.json"]);
}

#[test]
fn hidden_names_are_left_out_of_directories_and_read_where_they_are_named() {
    let root = tempfile::tempdir().unwrap();
    for name in ["..2024/a.yaml", ".b.yaml", ".git/c.yaml"] {
        write(root.path(), name, "a: 1\n");
    }
    // As Kubernetes mounts a volume.
    symlink("..2024", root.path().join("..data")).unwrap();
    symlink("..data/a.yaml", root.path().join("a.yaml")).unwrap();
    let texts = gathered(&[root.path().to_owned()]).unwrap();
    assert_eq!(names(&texts, root.path()), ["a.yaml"]);
    let named = gathered(&[root.path().join(".b.yaml")]).unwrap();
    assert_eq!(names(&named, root.path()), [".b.yaml"]);
}

#[test]
fn a_file_is_read_whatever_its_suffix_and_only_once() {
    let root = tempfile::tempdir().unwrap();
    let file = write(root.path(), "policy.txt", "a: 1\n");
    let again = root.path().join(".").join("policy.txt");
    let texts = gathered(&[file, again]).unwrap();
    assert_eq!(names(&texts, root.path()), ["policy.txt"]);
}

#[test]
fn standard_input_is_a_dash_and_is_read_once() {
    let texts = gather_from(&["-".into()], &mut "a: 1\n".as_bytes(), &mut ()).unwrap();
    assert_eq!((texts[0].name.as_str(), &*texts[0].text), ("-", "a: 1\n"));
    let twice = gather_from(&["-".into(), "-".into()], &mut io::empty(), &mut ()).unwrap_err();
    assert!(matches!(twice, InputError::StdinTwice));
}

#[test]
fn inputs_that_cannot_be_used_say_which_why_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("empty")).unwrap();
    let large = write(root, "large.yaml", "");
    File::options().write(true).open(&large).unwrap().set_len(50 * 1024 * 1024).unwrap();
    let cases = [
        (root.join("nowhere.yaml"), "no such file", "check the spelling"),
        (write(root, "f", "").join("below"), "no such file", "check the spelling"),
        (root.join("empty"), "holds no *.yaml", "name another directory"),
        (large, "larger than 16 MiB", "split it"),
        (write(root, "binary.yaml", b"a: 1\n\0"), "a NUL byte at offset 5", "name a YAML"),
        (write(root, "latin1.yaml", b"a: 1\nb: \xe9\n"), "not UTF-8 (line 2, byte 8)", "iconv"),
        (PathBuf::from("/dev/null"), "neither a file nor a directory", "name a YAML"),
    ];
    for (path, what, advice) in cases {
        let message = refusal(std::slice::from_ref(&path));
        assert!(message.starts_with(&format!("{}: ", path.display())), "{message}");
        assert!(message.contains(what) && message.contains(advice), "{message}");
        assert!(!message.ends_with('.'), "{message}");
    }
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let root = tempfile::tempdir().unwrap();
    let size = usize::try_from(FILE_BYTES_MAX).unwrap();
    let fits = write(root.path(), "a.yaml", vec![b'#'; size]);
    assert_eq!(gathered(&[fits]).unwrap()[0].text.len(), size);
    let exceeds = write(root.path(), "b.yaml", vec![b'#'; size + 1]);
    assert!(refusal(&[exceeds]).contains("larger than 16 MiB"));
}

#[test]
fn a_symbolic_link_loop_is_refused_where_it_closes() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a/b.yaml", "a: 1\n");
    symlink("..", root.path().join("a/up")).unwrap();
    let message = refusal(&[root.path().to_owned()]);
    assert!(message.contains("a/up: leads back"), "{message}");
    symlink("self.yaml", root.path().join("self.yaml")).unwrap();
    let message = refusal(&[root.path().join("self.yaml")]);
    assert!(message.contains("self.yaml: leads back"), "{message}");
}

#[test]
fn links_to_elsewhere_are_followed() {
    let root = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    write(other.path(), "b.yaml", "a: 1\n");
    symlink(other.path(), root.path().join("linked")).unwrap();
    let texts = gathered(&[root.path().to_owned()]).unwrap();
    assert_eq!(names(&texts, root.path()), ["linked/b.yaml"]);
}

#[test]
fn a_listed_file_that_is_gone_has_vanished() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a.yaml", "a: 1\n");
    // A dangling link is what a file looks like that went between listing and reading.
    symlink("gone", root.path().join("b.yaml")).unwrap();
    symlink("gone", root.path().join("unrelated.txt")).unwrap();
    let message = refusal(&[root.path().to_owned()]);
    assert!(message.contains("b.yaml: vanished"), "{message}");
}

#[test]
fn directories_nested_without_end_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", DIRECTORY_DEPTH_MAX + 1).collect();
    fs::create_dir_all(root.path().join(deep)).unwrap();
    assert!(refusal(&[root.path().to_owned()]).contains("nested deeper than 64"));
}

#[test]
fn a_path_that_is_no_text_is_still_named() {
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(b"/nowhere/\xff.yaml"));
    assert!(refusal(&[path]).starts_with("/nowhere/"));
}
