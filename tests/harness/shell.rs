//! Runs programs, and says so where someone watches.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs commands to their end; prints each one first if it was made with [`Shell::echoing`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Shell {
    echo: bool,
}

impl Shell {
    /// Silent until something fails.
    pub const fn silent() -> Self {
        Self { echo: false }
    }

    /// Prints each command so that a reader can repeat it.
    pub const fn echoing() -> Self {
        Self { echo: true }
    }

    /// Prints a line as a command if this shell echoes: for what is done by a system call and
    /// has a command that does the same.
    pub fn say(&self, line: &str) {
        if self.echo {
            println!("  $ {line}");
        }
    }

    /// Runs `line`, split at spaces (nothing here needs quoting), and returns its stdout.
    pub fn run(&self, line: &str) -> Result<String> {
        self.say(line);
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command")?;
        let output =
            Command::new(program).args(words).stdin(Stdio::null()).output().with_context(|| {
                format!("cannot run `{program}`; `cargo xtask setup` installs it")
            })?;
        checked(line, output)
    }

    /// Runs `ip -n NAMESPACE` with each of `lines`, in one process.
    pub fn ip(&self, namespace: &str, lines: &[String]) -> Result<()> {
        for line in lines {
            self.say(&format!("ip -n {namespace} {line}"));
        }
        let mut child = Command::new("ip")
            .args(["-n", namespace, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip`; `cargo xtask setup` installs it (package iproute2)")?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all((lines.join("\n") + "\n").as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        checked(&format!("ip -n {namespace} -batch ({})", lines.join("; ")), output).map(drop)
    }
}

/// Stdout of a command that succeeded, as text.
pub fn checked(what: &str, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "`{what}` failed ({})\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}
