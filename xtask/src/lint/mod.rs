//! `cargo xtask lint`: house rules that clippy cannot express. A rule that only reviewers
//! remember is a rule that will be broken.

mod imports;
mod map;
mod source;
mod texts;

use std::{fmt, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{docs, run};
use source::Source;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// 1-based; 0: the file as a whole.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Reads every file that git knows or would add, and checks it against every rule.
pub(crate) fn run() -> Result<()> {
    let mut ls = Command::new("git");
    ls.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(run::root());
    let mut sources = Vec::new();
    for path in run::ask(&mut ls)?.lines() {
        let file = run::root().join(path);
        // A file that was deleted and not committed yet is still listed.
        if file.is_file() {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("{path} is not UTF-8 text"))?;
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    let mut findings =
        [imports::check(&sources), map::check(&sources), texts::check(&sources)].concat();
    let text = |path: &str| {
        sources.iter().find(|source| source.path == path).map(|source| source.text.as_str())
    };
    let stale = docs::stale(text).into_iter();
    findings.extend(stale.map(|(path, message)| Finding { path: path.into(), line: 0, message }));
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "{} house rules are broken", findings.len());
    println!("house rules: {} files are fine", sources.len());
    Ok(())
}
