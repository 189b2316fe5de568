//! Developer commands of the project: `cargo xtask`. Ordinary code, one file per verb; every
//! command that it runs is printed first, so that a reader can do without it.

mod bench;
mod bpf;
mod ci;
mod demo;
mod docs;
mod fuzz;
mod lint;
mod provision;
mod run;
mod setup;
mod test;
mod vm;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

/// Builds, tests and shows balancer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the build, the tests and the demo need, or list what is missing
    Setup,
    /// Build a small world in network namespaces and watch connections follow a policy (root)
    Demo,
    /// Run what CI runs: format, clippy, house rules, every test
    Ci,
    /// Run one suite of tests, or all of them
    Test {
        /// The suite; without it, every one
        suite: Option<test::Suite>,
        /// Conformance data to run beside the project's own cases
        #[arg(long, value_name = "DIR", default_value = test::CORPUS)]
        corpus: PathBuf,
        /// For the suite `vm`: a kernel to run it on, 6.1 or 6.12; without it, both
        #[arg(long = "kernel", value_name = "SERIES")]
        kernels: Vec<vm::Series>,
        /// For one suite: what its test runner is told, such as a part of a test's name
        #[arg(last = true, value_name = "WORDS", requires = "suite")]
        words: Vec<String>,
    },
    /// Run a bench
    Bench {
        /// Which one; without it, every one
        bench: Option<bench::Bench>,
        /// Form of the result
        #[arg(short, long, value_enum, default_value_t = bench::Output::Text)]
        output: bench::Output,
        /// For one bench: what it is told, such as `--runs 3` or a part of a measure's name
        #[arg(last = true, value_name = "WORDS", requires = "bench")]
        words: Vec<String>,
    },
    /// Build the eBPF object and say where it is and how long its programs are
    Bpf {
        /// Disassemble it too
        #[arg(long)]
        dump: bool,
        /// Take the debug object, which logs new and refused flows
        #[arg(long, conflicts_with = "stats")]
        debug: bool,
        /// Say what verifying, stack and maps of each program cost, and what changed (root)
        #[arg(long, conflicts_with = "dump")]
        stats: bool,
        /// A kernel to ask: 6.1, 6.12, or `running` for this machine's own; without it, each
        #[arg(long = "kernel", value_name = "SERIES", requires = "stats")]
        kernels: Vec<bpf::stats::Kernel>,
        /// Write the figures to docs/datapath.md
        #[arg(long, requires = "stats")]
        bless: bool,
        /// Form of the figures
        #[arg(short, long, value_enum, requires = "stats", default_value_t = bpf::stats::Output::Text)]
        output: bpf::stats::Output,
    },
    /// Try inputs that nobody thought of, with libFuzzer (nightly toolchain)
    Fuzz {
        /// What is tried
        target: fuzz::Target,
        /// For how long: a number with s, m or h
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = fuzz::parse_time)]
        time: Duration,
        /// Keep what was found to reach more code, in tests/fuzz/corpora/
        #[arg(long)]
        bless: bool,
    },
    /// Check the house rules that clippy cannot express
    Lint,
    /// Write the parts of docs/ that come from the code: families of metrics, reasons
    Docs,
}

fn main() -> ExitCode {
    let Some(verb) = Args::parse().verb else {
        // Nothing was asked for, so showing what can be asked for is no failure.
        return match Args::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    let outcome = match verb {
        Verb::Setup => setup::run(setup::Talk::Full, setup::Group::ALL),
        Verb::Demo => demo::run(),
        Verb::Ci => ci::run(),
        Verb::Test { suite, corpus, kernels, words } => {
            test::run(suite, &test::Choice { corpus, kernels, words })
        }
        Verb::Bench { bench, output, words } => bench::run(bench, output, &words),
        Verb::Bpf { stats: true, kernels, bless, output, .. } => {
            bpf::stats::run(&kernels, bless, output)
        }
        Verb::Bpf { dump, debug, .. } => bpf::run(dump, debug),
        Verb::Fuzz { target, time, bless } => fuzz::run(target, time, bless),
        Verb::Lint => lint::run(),
        Verb::Docs => docs::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
