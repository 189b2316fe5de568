//! Commands: words, output forms and exit codes.
//!
//! Belongs here: what `--help` says, what a person or a script reads, which exit code follows
//! from what. Decisions are made elsewhere: this room reads arguments, asks the other rooms in
//! their order and prints what they answer. `unload`, `show`, `maps` and `status` need no policies,
//! `check`, `explain -f` and `plan` against files need no kernel.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::{
    args::{Cli, Command},
    failure::Failure,
};

mod agent;
mod args;
mod check;
mod config;
mod explain;
mod failure;
mod forwarding;
mod inputs;
mod interrupts;
mod live;
mod load;
mod lookup;
mod man;
mod maps;
mod output;
mod plan;
mod requirements;
mod schema;
mod show;
mod snat;
mod status;
mod status_agent;
mod trace;
mod unload;
mod values;

/// Runs the command line and returns its exit code: 0 done, 1 the policies are at fault,
/// 2 wrong usage, 3 the kernel, a privilege or the state directory is at fault.
pub fn main() -> ExitCode {
    // Exits with 0 for --help and --version, with 2 for what it does not understand.
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Load(args) => load::run(args, global),
        Command::Agent(args) => agent::run(args, global),
        Command::Config(args) => config::run(args, global),
        Command::Unload => unload::run(global),
        Command::Check(args) => check::run(args, global),
        Command::Plan(args) => plan::run(args, global),
        Command::Explain(args) => explain::run(args, global),
        Command::Show(args) => show::run(args, global),
        Command::Maps(args) => maps::run(args, global),
        Command::Trace(args) => trace::run(args, global),
        Command::Status(args) if args.requirements => requirements::run(global),
        Command::Status(_) => status::run(global),
        Command::Schema(args) => schema::run(args, global),
        Command::Completions { shell } => completions(*shell),
        Command::Man(args) => man::run(args),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "balancer", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
