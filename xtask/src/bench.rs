//! `cargo xtask bench`: the benches, in release, with the cost of what they stand beside.

use anyhow::Result;
use clap::ValueEnum;

use crate::{run, setup};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Bench {
    /// Policies into tables, tables into the kernel
    Compile,
    /// One packet through the programs, net of the empty driver (root)
    Packet,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// A list of measures
    Json,
}

pub(crate) fn run(bench: Option<Bench>, output: Output) -> Result<()> {
    setup::run(setup::Talk::Short)?;
    let benches = match &bench {
        Some(one) => std::slice::from_ref(one),
        None => Bench::value_variants(),
    };
    for bench in benches {
        let value = bench.to_possible_value();
        let name = value.as_ref().map_or("?", |v| v.get_name());
        let mut command = run::cargo(&["bench", "--package", "balancer-tests", "--bench", name]);
        if let Output::Json = output {
            command.args(["--", "-o", "json"]);
        }
        run::run(&mut command)?;
    }
    Ok(())
}
