//! `cargo xtask fuzz`: inputs that nobody thought of, against what holds for any input
//! (`tests/fuzz`). libFuzzer grows them by what code they reach; docs/fuzzing.md says more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;

use crate::{
    run,
    setup::{self, cache, inner},
};

/// The version that is installed where there is none.
const VERSION: &str = "0.13.2";
/// Most memory that a target may take, in MiB, as libFuzzer counts it: resident, at its peak.
const MEMORY_MIB: u32 = 256;
/// Longest that one input may take, in seconds.
const INPUT_SECONDS: u32 = 10;

/// Most that is kept of a corpus in the repository, in bytes.
const KEPT_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Target {
    /// Bytes through the reader, and what is valid through `resolve` and `compile`
    Policy,
    /// Rules and requests: what the router finds against asking every match
    Request,
    /// Two sets, compiled, and what one in place of the other would change
    Plan,
}

impl Target {
    /// Largest input, in bytes. What rules and sets are made of is less than a text of them.
    fn bytes(self) -> u32 {
        match self {
            Self::Policy => 16 << 10,
            Self::Request | Self::Plan => 1 << 10,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Fuzzes for so long; fails where an input breaks something.
pub(crate) fn run(target: Target, time: Duration, bless: bool) -> Result<()> {
    setup::run(setup::Talk::Short, &[setup::Group::Fuzz])?;
    let name = target.name();
    let tool = tool()?;
    let corpus = corpus(&name);
    seed(&name, &corpus)?;
    let found = work().join("found").join(&name);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut command = fuzz(&tool, &name, &[&corpus]);
    if let Target::Policy = target {
        command.arg(run::root().join("policies"));
    }
    command.arg("--").args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-timeout={INPUT_SECONDS}"),
        format!("-max_len={}", target.bytes()),
        format!("-artifact_prefix={}/", found.display()),
        // Short inputs make no rules and no sets: their length is not to grow from nothing.
        "-len_control=0".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    run::run(&mut command).with_context(|| {
        format!(
            "if an input broke something, it is in {}: mend it, and keep the input as a file of \
             tests/fuzz/regressions/{name}/ (as hex in NAME.hex where it is no text)",
            found.display()
        )
    })?;
    if bless { keep(&tool, target, &corpus) } else { Ok(()) }
}

/// Where everything is that can be made again.
fn work() -> PathBuf {
    run::root().join("target").join("fuzz")
}

fn corpus(name: &str) -> PathBuf {
    work().join("corpus").join(name)
}

/// The file that keeps a target's corpus in the repository: an input a line, as hex.
fn kept(name: &str) -> PathBuf {
    run::root().join("tests/fuzz/corpora").join(format!("{name}.hex"))
}

/// `cargo fuzz run` of a target, with inputs from these directories.
fn fuzz(tool: &Path, name: &str, inputs: &[&Path]) -> Command {
    // rustup's cargo, which knows toolchains: the one that runs this is of one of them.
    let mut command = inner(Path::new("cargo"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = tool.parent().into_iter().map(Path::to_owned);
    let path = std::env::join_paths(directories.chain(std::env::split_paths(&path)));
    command.current_dir(run::root()).args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz"]);
    // What is fuzzed forbids `unsafe`, so that AddressSanitizer would find nothing in it; its own
    // memory would count as ours.
    command.args(["--sanitizer", "none", "--target-dir"]).arg(work().join("build")).arg(name);
    command.args(inputs);
    command.env("BALANCER_EBPF_SKIP", "1");
    if let Ok(path) = path {
        command.env("PATH", path);
    }
    command
}

/// cargo-fuzz: on PATH, or in the user's cache, where it is installed if need be.
fn tool() -> Result<PathBuf> {
    if let Some(tool) = run::program("cargo-fuzz") {
        return Ok(tool);
    }
    let home = cache().map_err(|e| anyhow!("{e}"))?.join(format!("cargo-fuzz-{VERSION}"));
    let tool = home.join("bin").join("cargo-fuzz");
    if !tool.is_file() {
        run::run(&mut install(&home))?;
    }
    ensure!(tool.is_file(), "cargo-fuzz {VERSION} has no {}", tool.display());
    Ok(tool)
}

fn install(home: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = inner(Path::new(&cargo));
    command.args(["install", "cargo-fuzz", "--version", VERSION, "--locked", "--root"]).arg(home);
    command
}

/// Puts what is kept of a target's corpus where the fuzzer works with it.
fn seed(name: &str, corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let kept = kept(name);
    let text = fs::read_to_string(&kept).with_context(|| format!("reading {}", kept.display()))?;
    for (number, line) in text.lines().enumerate() {
        let input =
            bytes(line).with_context(|| format!("{}:{}: no hex", kept.display(), number + 1))?;
        fs::write(corpus.join(format!("kept-{number}")), input)?;
    }
    Ok(())
}

/// Keeps the inputs of the corpus that reach something that no smaller one of them reaches, the
/// short ones first.
fn keep(tool: &Path, target: Target, corpus: &Path) -> Result<()> {
    let name = &target.name();
    let fresh = work().join("merged").join(name);
    if fresh.is_dir() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    let mut command = fuzz(tool, name, &[&fresh, corpus]);
    command.args(["--", "-merge=1"]).arg(format!("-max_len={}", target.bytes()));
    run::run(&mut command)?;
    let mut lines = Vec::new();
    for entry in fs::read_dir(&fresh)? {
        lines.push(hex(&fs::read(entry?.path())?));
    }
    lines.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut sum = 0;
    lines.retain(|line| {
        sum += line.len() + 1;
        sum <= KEPT_BYTES
    });
    let kept = kept(name);
    fs::write(&kept, lines.join("\n") + "\n")
        .with_context(|| format!("cannot write {}", kept.display()))?;
    println!("{}: {} inputs", kept.display(), lines.len());
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Reads `90s`, `10m` or `2h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write a number with s, m or h, e.g. 10m");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|all| *all > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_are_not_nothing() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        for text in ["", "10", "m", "0s", "1d", "-1m", "99999999999999999999h", "1mm"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn inputs_survive_being_kept() {
        let input = [0, 0x7f, 0xff, b'a'];
        assert_eq!(bytes(&hex(&input)), Some(input.to_vec()));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert_eq!(bytes("0g"), None);
    }

    #[test]
    fn the_fuzzer_is_what_a_reader_can_type() {
        let shown = run::shown(&install(Path::new("/there")));
        assert!(shown.ends_with("install cargo-fuzz --version 0.13.2 --locked --root /there"));
        for target in Target::value_variants() {
            let name = target.name();
            assert!(run::root().join(format!("fuzz/targets/{name}.rs")).is_file());
            assert!(kept(&name).is_file(), "no corpus of {name}");
        }
    }
}
