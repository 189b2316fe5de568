//! `cargo xtask bench`: the benches, in release, with the cost of what they stand beside.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::{
    run,
    setup::{
        self,
        object::{Built, Object},
    },
};

/// Tells `bench packet` where its driver is.
const DRIVER: &str = "BALANCER_BENCH_DRIVER";
/// Tells `bench l4` and `bench l7` where Envoy is.
const ENVOY: &str = "BALANCER_BENCH_ENVOY";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Bench {
    /// Policies into tables, tables into the kernel
    Compile,
    /// From a request to the HTTP rule that takes it
    Match,
    /// One packet through the programs, net of the empty driver (root)
    Packet,
    /// From a renamed policy file to packets that meet it (root)
    Flip,
    /// Thousands of services: load, one change, show, memory (root)
    Scale,
    /// Connections, requests and bytes beside what others make of them: CPU time of all (root)
    L4,
    /// HTTP requests through the proxy, beside other proxies: CPU time of all, memory (root)
    L7,
    /// Established connections while another VIP is flooded with SYNs (root)
    Flood,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// A list of measures
    Json,
}

/// Runs one bench, or every one; `words` are passed on to the one.
pub(crate) fn run(bench: Option<Bench>, output: Output, words: &[String]) -> Result<()> {
    setup::run(setup::Talk::Short, &[setup::Group::Build, setup::Group::Run])?;
    let benches = match &bench {
        Some(one) => std::slice::from_ref(one),
        None => Bench::value_variants(),
    };
    let mut measures = Vec::new();
    for bench in benches {
        let value = bench.to_possible_value();
        let name = value.as_ref().map_or("?", |v| v.get_name());
        let mut command = run::cargo(&["bench", "--package", "balancer-tests", "--bench", name]);
        match bench {
            Bench::Packet => {
                command.env(DRIVER, driver()?);
            }
            Bench::L4 | Bench::L7 => {
                if let Some(envoy) = setup::peers() {
                    command.env(ENVOY, envoy);
                }
            }
            Bench::Compile | Bench::Match | Bench::Flip | Bench::Scale | Bench::Flood => {}
        }
        command.arg("--").args(words);
        match output {
            Output::Text => run::run(&mut command)?,
            Output::Json => {
                command.args(["-o", "json"]);
                let text = run::read(&mut command)?;
                let list: Vec<serde_json::Value> = serde_json::from_str(&text)
                    .with_context(|| format!("bench {name} printed no list of measures: {text}"))?;
                measures.extend(list);
            }
        }
    }
    if let Output::Json = output {
        println!("{}", serde_json::to_string_pretty(&measures)?);
    }
    Ok(())
}

/// Builds the object that drives the datapath. A plain build does not pay for it.
fn driver() -> Result<PathBuf> {
    let object = Object {
        root: run::root(),
        bin: "driver",
        logs: false,
        target: setup::TARGET,
        arch: std::env::consts::ARCH,
        target_dir: &run::root().join("target").join("bpf-driver"),
    };
    let Built { file, linker } = object.build().map_err(|e| anyhow!("{e}"))?;
    eprintln!("driver: {} (linked by {})", file.display(), linker.display());
    Ok(file)
}
