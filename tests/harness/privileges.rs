//! Whether this process may do what a suite needs. A [`Root`] is the proof: whatever makes a
//! namespace or loads a program asks for one, so a suite cannot forget to look.

use std::{fs, io::Write, sync::Once};

/// Bits of `CapEff` in `/proc/self/status` (`linux/capability.h`).
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Proof that this process may create namespaces, mount bpffs and load programs.
#[derive(Clone, Copy, Debug)]
pub struct Root(());

impl Root {
    /// The proof, or what is missing.
    pub fn check() -> Result<Self, String> {
        let status = fs::read_to_string("/proc/self/status")
            .map_err(|e| format!("cannot read /proc/self/status: {e}"))?;
        let caps = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .ok_or("no CapEff line in /proc/self/status")?;
        let missing: Vec<_> =
            NEEDED.iter().filter(|(bit, _)| caps >> bit & 1 == 0).map(|(_, name)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(format!("no {}", missing.join(", "))) }
    }
}

/// For the first line of a test that needs root: the proof, or `None` after one line on stderr
/// for the whole suite.
///
/// # Panics
/// Where `CI=true` is set: there a missing privilege is a failure, never a skip.
pub fn root_or_skip(suite: &str) -> Option<Root> {
    static SAID: Once = Once::new();
    match Root::check() {
        Ok(root) => Some(root),
        Err(missing) if std::env::var("CI").is_ok_and(|v| v == "true") => {
            panic!("suite {suite} needs root and CI=true forbids skipping: {missing}")
        }
        Err(missing) => {
            // Past the test runner's capture: nobody reads the output of a test that passed.
            SAID.call_once(|| {
                let line = format!(
                    "skipped: suite {suite} needs root ({missing}); run `sudo -E cargo xtask test {suite}`\n"
                );
                std::io::stderr().write_all(line.as_bytes()).expect("stderr is writable");
            });
            None
        }
    }
}
