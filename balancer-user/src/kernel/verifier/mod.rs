//! What the verifier said, cut down to what helps.

mod lines;

use std::{fmt, fs, io, path::PathBuf};

pub use lines::{Origin, SourceLine};

/// Lines of the log that are shown.
const TELLING: usize = 12;

/// A program that the verifier refused.
#[derive(Debug)]
pub struct Rejection {
    /// Name of the program.
    pub program: String,
    /// What `BPF_PROG_LOAD` returned.
    pub error: io::Error,
    /// Number of the refused instruction, as the kernel counts; none where the log names none.
    pub instruction: Option<u32>,
    /// The source line that the refused instruction comes from, by the object's line info.
    pub origin: Option<Origin>,
    /// The last lines of the log, statistics left out.
    pub telling: Vec<String>,
    /// Lines before those.
    pub omitted: usize,
    /// The file with the whole log, or why there is none.
    pub log_file: Result<PathBuf, String>,
}

impl Rejection {
    /// Reads the log about a program of `object`, and writes it to a file of the temporary
    /// directory.
    pub(crate) fn new(program: &str, error: io::Error, log: &str, object: &[u8]) -> Self {
        let (telling, omitted) = digest(log);
        let instruction = refused_instruction(log);
        Self {
            program: program.to_owned(),
            error,
            instruction,
            origin: instruction.and_then(|number| lines::origin(object, program, number)),
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

/// Telling lines, number of lines left out.
fn digest(log: &str) -> (Vec<String>, usize) {
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
    (lines[start..end].iter().map(|l| (*l).to_owned()).collect(), start)
}

/// The instruction that the verifier stopped at: the last that it printed (`41: (61) r0 = …`), or
/// one that a message behind it names (`back-edge from insn 7 to 3`: the first).
fn refused_instruction(log: &str) -> Option<u32> {
    let printed = |line: &str| line.split_once(": (")?.0.trim_start().parse().ok();
    let named = |line: &str| {
        let (_, rest) = line.split_once("insn ")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    // Its statistics speak of instructions too.
    let mut lines = log.lines().rev().filter(|line| !line.starts_with("processed "));
    lines.find_map(|line| printed(line).or_else(|| named(line)))
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the kernel's verifier refused program {}: {}", self.program, self.error)?;
        match (&self.origin, self.instruction) {
            (Some(origin), Some(number)) => writeln!(f, "  at {origin} (instruction {number})")?,
            (None, Some(number)) => {
                writeln!(f, "  at instruction {number}, for which the object has no source line")?;
            }
            (_, None) => {}
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
    fn digest_keeps_the_verdict() {
        let mut log = String::new();
        for i in 0..40 {
            log.push_str(&format!("{i}: (bf) r{} = r1\n", i % 10));
        }
        log.push_str("; let port = *p; @ main.rs:12\n41: (61) r0 = *(u32 *)(r9 +0)\n");
        log.push_str("R9 !read_ok\nverification time 66 usec\nstack depth 0\nprocessed 42 insns\n");
        let (telling, omitted) = digest(&log);
        assert_eq!(telling.last().map(String::as_str), Some("R9 !read_ok"));
        assert_eq!((telling.len(), omitted), (TELLING, 43 - TELLING));
        assert_eq!(refused_instruction(&log), Some(41));
    }

    #[test]
    fn instruction_is_found_in_the_message_where_none_is_printed() {
        let log =
            "back-edge from insn 7 to 3\nprocessed 0 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(refused_instruction(log), Some(7));
        let log = "12: (05) goto pc-4\ninfinite loop detected at insn 9\nprocessed 30 insns\n";
        assert_eq!(refused_instruction(log), Some(9));
        let states = "from 12 to 15: R0=0 R10=fp0\n15: (95) exit\nR0 !read_ok\n";
        assert_eq!(refused_instruction(states), Some(15));
        assert_eq!(refused_instruction("BPF program is too large\n"), None);
    }

    #[test]
    fn empty_log_gives_no_lines() {
        assert_eq!(digest(""), (Vec::new(), 0));
        assert_eq!(refused_instruction(""), None);
    }
}
