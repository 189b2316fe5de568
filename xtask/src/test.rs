//! `cargo xtask test`: the suites. Each is a plain `cargo test`; this knows their names, which
//! of them need root, and adds up their results.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{
    provision, run,
    setup::{self, Group},
    vm,
};

/// Where conformance data lies when nobody says.
pub(crate) const CORPUS: &str = "../shared/conformance";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Everything beside the code: values, properties, examples in the docs
    Unit,
    /// Packets through the real programs by BPF_PROG_TEST_RUN (root)
    Datapath,
    /// The real command, interfaces and sockets in network namespaces (root)
    E2e,
    /// Cases of other projects and of this one, as data
    Conformance,
    /// Transcripts of commands, help texts
    Cli,
    /// Malformed requests at our proxy, nginx and HAProxy
    Differential,
    /// Maps, pins, publishing, refusals (root)
    Kernel,
    /// The object in libbpf and bpftool, the debug object's log (root)
    Loaders,
    /// The suites that depend on the kernel, in virtual machines with Debian's kernels
    Vm,
    /// The script that sets up a machine, in a new Debian (root, network, minutes; only when named)
    Provision,
}

impl Suite {
    /// What setup has to find or install for it.
    fn needs(self) -> &'static [Group] {
        match self {
            Self::Unit | Self::Conformance => &[Group::Build],
            Self::Datapath | Self::Cli | Self::Kernel => &[Group::Build, Group::Run],
            Self::E2e => &[Group::Build, Group::Run, Group::Metrics, Group::Quic],
            Self::Differential => &[Group::Build, Group::Proxies],
            Self::Loaders => &[Group::Build, Group::Run, Group::Loaders],
            Self::Vm => &[Group::Build, Group::Run, Group::Vm],
            Self::Provision => &[Group::Provision],
        }
    }

    /// Whether it runs when no suite is named.
    fn usual(self) -> bool {
        self != Self::Provision
    }
}

/// What of a suite to run.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Where conformance data lies, from the workspace on.
    pub(crate) corpus: PathBuf,
    /// Kernels of the suite `vm`; all, where none is named.
    pub(crate) kernels: Vec<vm::Series>,
    /// For the test runner.
    pub(crate) words: Vec<String>,
}

impl Default for Choice {
    fn default() -> Self {
        Self { corpus: CORPUS.into(), kernels: Vec::new(), words: Vec::new() }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("?", |v| v.get_name()))
    }
}

/// Sums of cargo's `test result:` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored")
    }
}

impl Tally {
    /// Adds a line of output, if it is a result: cargo's `test result: ok. 12 passed; 0 failed;
    /// …`, or the conformance runner's `FILE: 12 passed, 0 failed, …`.
    pub(crate) fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once(". ").or_else(|| line.split_once(": ")) else {
            return;
        };
        let counts: Vec<_> = counts.split(&[';', ',']).map(str::trim).collect();
        let count = |what: &str| {
            let number = |part: &&str| part.strip_suffix(what)?.trim().parse::<u64>().ok();
            counts.iter().find_map(number)
        };
        if let (Some(passed), Some(failed)) = (count("passed"), count("failed")) {
            self.passed += passed;
            self.failed += failed;
            self.ignored += count("ignored").unwrap_or_default();
        }
    }
}

/// Runs `suite`, or each one; fails at the end if any failed.
pub(crate) fn run(suite: Option<Suite>, choice: &Choice) -> Result<()> {
    ensure!(
        choice.kernels.is_empty() || matches!(suite, None | Some(Suite::Vm)),
        "--kernel is for the suite `vm`; every other one runs on this machine's own kernel"
    );
    let suites = match suite {
        Some(one) => vec![one],
        None => Suite::value_variants().iter().copied().filter(|suite| suite.usual()).collect(),
    };
    let groups: Vec<_> = suites.iter().flat_map(|suite| suite.needs()).copied().collect();
    setup::run(setup::Talk::Short, &groups)?;
    let corpus = std::path::absolute(run::root().join(&choice.corpus))?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for &suite in &suites {
        let begun = Instant::now();
        let mut tally = Tally::default();
        let fine = match suite {
            Suite::Provision => provision::run(|line| tally.add(line))?,
            Suite::Vm => {
                let all = &vm::Series::ALL;
                let kernels = if choice.kernels.is_empty() { all } else { &*choice.kernels };
                vm::suite::run(kernels, &choice.words, |line| tally.add(line))?
            }
            _ => {
                let mut command = command(suite, &corpus);
                if !choice.words.is_empty() {
                    command.arg("--").args(&choice.words);
                }
                run::watch(&mut command, |line| tally.add(line))?
            }
        };
        if !fine {
            failed.push(suite.to_string());
        }
        lines.push(format!(
            "{} {suite:<12} {tally} in {:.1} s",
            if fine { "ok    " } else { "FAILED" },
            begun.elapsed().as_secs_f64()
        ));
    }
    println!("\n{}", lines.join("\n"));
    ensure!(failed.is_empty(), "suites failed: {}", failed.join(", "));
    Ok(())
}

fn command(suite: Suite, corpus: &Path) -> std::process::Command {
    let name = suite.to_string();
    let mut command = match suite {
        Suite::Unit => {
            let others = ["--exclude", "balancer-tests", "--exclude", "balancer-loaders"];
            run::cargo(&[&["test", "--workspace"], &others[..]].concat())
        }
        Suite::Loaders => run::cargo(&["test", "--package", "balancer-loaders"]),
        _ => run::cargo(&["test", "--package", "balancer-tests", "--test", &name]),
    };
    if suite == Suite::Conformance {
        command.env("BALANCER_CORPUS", corpus);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut tally = Tally::default();
        tally.add("running 3 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out");
        tally.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.add("validation.jsonl: 20 passed, 1 failed, 3 excepted, 9 of kinds not built");
        assert_eq!(tally, Tally { passed: 25, failed: 5, ignored: 1 });
    }

    #[test]
    fn whoever_names_no_suite_gets_what_setup_installs_and_nothing_more() {
        let usual = Suite::value_variants().iter().filter(|suite| suite.usual());
        let needs: Vec<_> = usual.flat_map(|suite| suite.needs()).collect();
        assert!(needs.iter().all(|group| Group::ALL.contains(group)), "{needs:?}");
        assert!(!Suite::Provision.usual() && Suite::Provision.needs() == [Group::Provision]);
    }
}
