//! What holds for any input, as functions of bytes that panic where it does not.
//!
//! The fuzzer calls them with whatever it thinks of, and the tests below with the examples and
//! inputs that are kept: in `regressions/TARGET/` those that broke something or are made to, in
//! `corpora/` what the fuzzer found to reach most.

#![forbid(unsafe_code)]

mod plan;
mod policy;
mod request;

pub use plan::plan;
pub use policy::policy;
pub use request::request;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 3] =
        [("policy", super::policy), ("request", super::request), ("plan", super::plan)];

    fn beside(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    /// Every file below a directory.
    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry"));
        let (directories, mut files): (Vec<_>, Vec<_>) =
            entries.map(|entry| entry.path()).partition(|path| path.is_dir());
        files.extend(directories.iter().flat_map(|directory| self::files(directory)));
        files
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.trim().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).expect("text"), 16).expect("hex");
        pairs.map(byte).collect()
    }

    /// How many files there are; inputs that are no text are written as hex.
    fn hold(directory: &Path, check: impl Fn(&[u8])) -> usize {
        let found = files(directory);
        for file in &found {
            // Of a test that fails, the last one is the one.
            eprintln!("{}", file.display());
            let input = fs::read(file).expect("a file");
            match file.extension() {
                Some(end) if end == "hex" => check(&bytes(&String::from_utf8_lossy(&input))),
                _ => check(&input),
            }
        }
        found.len()
    }

    #[test]
    fn examples_hold() {
        assert!(hold(&beside("../../policies"), super::policy) > 40);
    }

    #[test]
    fn inputs_that_broke_something_or_are_made_to_hold() {
        let mut held = 0;
        for (target, check) in TARGETS {
            let directory = beside("regressions").join(target);
            if directory.is_dir() {
                held += hold(&directory, check);
            }
        }
        assert!(held > 0);
    }

    #[test]
    fn kept_inputs_hold() {
        // Two sets take as long as hundreds of requests.
        for ((target, check), most) in TARGETS.into_iter().zip([400, 4_000, 40]) {
            let file = beside(&format!("corpora/{target}.hex"));
            let text = fs::read_to_string(file).expect("a corpus");
            assert!(text.lines().count() > 100, "{target}");
            let step = text.lines().count().div_ceil(most);
            text.lines().step_by(step).for_each(|line| check(&bytes(line)));
        }
    }
}
