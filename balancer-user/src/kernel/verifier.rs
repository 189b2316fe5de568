//! What the verifier said, cut down to what helps.

use std::{fmt, fs, io, path::PathBuf};

/// Lines of the log that are shown.
const TELLING: usize = 12;

/// A program that the verifier refused.
#[derive(Debug)]
pub struct Rejection {
    /// Name of the program.
    pub program: String,
    /// What `BPF_PROG_LOAD` returned.
    pub error: io::Error,
    /// The source line that the refused instruction comes from, as in the object's line info.
    pub source_line: Option<String>,
    /// The last lines of the log, statistics left out.
    pub telling: Vec<String>,
    /// Lines before those.
    pub omitted: usize,
    /// The file with the whole log, or why there is none.
    pub log_file: Result<PathBuf, String>,
}

impl Rejection {
    /// Reads the log and writes it to a file of the temporary directory.
    pub(crate) fn new(program: &str, error: io::Error, log: &str) -> Self {
        let (source_line, telling, omitted) = digest(log);
        Self {
            program: program.to_owned(),
            error,
            source_line,
            telling,
            omitted,
            log_file: keep(program, log).map_err(|e| e.to_string()),
        }
    }
}

/// The whole log in a fresh file that only we can read.
fn keep(program: &str, log: &str) -> io::Result<PathBuf> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let dir = std::env::temp_dir();
    for attempt in 0..1000 {
        let path =
            dir.join(format!("balancer-verifier-{program}-{}-{attempt}.log", std::process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                file.write_all(log.as_bytes())?;
                return Ok(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other(format!("too many logs in {}", dir.display())))
}

/// Source line, telling lines, number of lines left out.
fn digest(log: &str) -> (Option<String>, Vec<String>, usize) {
    let lines: Vec<&str> = log.trim_end_matches('\0').lines().map(str::trim_end).collect();
    // Statistics follow the verdict.
    let is_statistics = |l: &&str| {
        l.is_empty()
            || l.starts_with("verification time")
            || l.starts_with("stack depth")
            || l.starts_with("processed ")
    };
    let end = lines.iter().rposition(|l| !is_statistics(l)).map_or(0, |last| last + 1);
    let start = end.saturating_sub(TELLING);
    // `; text @ file.rs:12` precedes the instructions of each source line.
    let source_line =
        lines[..end].iter().rev().find_map(|l| l.strip_prefix("; ")).map(|l| l.trim().to_owned());
    (source_line, lines[start..end].iter().map(|l| (*l).to_owned()).collect(), start)
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the kernel's verifier refused program {}: {}", self.program, self.error)?;
        if let Some(line) = &self.source_line {
            writeln!(f, "  at {line}")?;
        }
        if self.omitted > 0 {
            writeln!(f, "  … {} lines left out", self.omitted)?;
        }
        for line in &self.telling {
            writeln!(f, "  | {line}")?;
        }
        match &self.log_file {
            Ok(path) => write!(f, "  the whole log: {}", path.display()),
            Err(why) => write!(f, "  the whole log could not be kept: {why}"),
        }
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_keeps_the_verdict_and_the_source_line() {
        let mut log = String::new();
        for i in 0..40 {
            log.push_str(&format!("{i}: (bf) r{} = r1\n", i % 10));
        }
        log.push_str("; let port = *p; @ main.rs:12\n41: (61) r0 = *(u32 *)(r9 +0)\n");
        log.push_str("R9 !read_ok\nverification time 66 usec\nstack depth 0\nprocessed 42 insns\n");
        let (source, telling, omitted) = digest(&log);
        assert_eq!(source.as_deref(), Some("let port = *p; @ main.rs:12"));
        assert_eq!(telling.last().map(String::as_str), Some("R9 !read_ok"));
        assert_eq!((telling.len(), omitted), (TELLING, 43 - TELLING));
    }

    #[test]
    fn empty_log_gives_no_lines() {
        assert_eq!(digest(""), (None, Vec::new(), 0));
    }
}
