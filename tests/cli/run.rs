//! Runs `balancer` without privileges or instance, and looks at how it ended.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::instance::balancer_binary;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn new(line: String, output: Output) -> Self {
        Self {
            line,
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Checks the exit code, and that output of every kind is fit for people.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self}");
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            for sign in ["panicked", "\u{1b}[", "Some(", "Os {", "kind: "] {
                assert!(!text.contains(sign), "{name} has `{sign}`: {self}");
            }
        }
        self
    }

    /// Checks that stderr says each of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "stderr does not say `{part}`: {self}");
        }
        self
    }

    /// Checks that stdout has each of `parts`.
    #[track_caller]
    pub(crate) fn prints(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stdout.contains(part), "stdout does not have `{part}`: {self}");
        }
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}", self.line)?;
        writeln!(f, "exit code {:?}", self.code)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

/// `balancer ARGS` in `directory`, with `stdin`, no terminal and a fixed width.
pub(crate) fn balancer_in(directory: &Path, args: &[&str], stdin: Stdio) -> Ended {
    let output = Command::new(balancer_binary())
        .args(args)
        .current_dir(directory)
        .stdin(stdin)
        .env_remove("NO_COLOR")
        .env("COLUMNS", "100")
        .output()
        .expect("balancer can be started");
    Ended::new(format!("balancer {}", args.join(" ")), output)
}

/// The same, anywhere and without input.
pub(crate) fn balancer(args: &[&str]) -> Ended {
    balancer_in(Path::new("/"), args, Stdio::null())
}
