//! `balancer man`: manual pages, made of what `--help` says.

use clap::{Args, CommandFactory as _};

use super::{args::Cli, failure::Failure, output};
use crate::policy::suggest::suggest;

pub(super) const MAN_ABOUT: &str = "\
Print a manual page.

As roff, for man(1): the page of balancer itself, or that of a verb. It says what `--help` says.";

pub(super) const MAN_AFTER: &str = "\
Examples:
  balancer man load | man -l -
  balancer man > /usr/local/share/man/man1/balancer.1
  balancer man show flows > /usr/local/share/man/man1/balancer-show-flows.1";

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The verb; without one the page is that of balancer itself
    #[arg(value_name = "VERB")]
    verb: Vec<String>,
}

pub(crate) fn run(args: &Man) -> Result<(), Failure> {
    output::data(&page(&args.verb)?)
}

/// The page of a verb, or of the whole command where no verb is given, as roff.
fn page(verb: &[String]) -> Result<String, Failure> {
    let mut root = Cli::command().disable_help_subcommand(true);
    // Hands the flags that stand everywhere down to every verb.
    root.build();
    let mut command = root;
    let mut name = "balancer".to_owned();
    for word in verb {
        let Some(next) = command.find_subcommand(word) else {
            return Err(unknown(&command, &name, word));
        };
        name = format!("{name}-{word}");
        let next = next.clone();
        command = next;
    }
    // A page is found by a name without blanks: man(1) takes `balancer load` for
    // `balancer-load`.
    let version = env!("CARGO_PKG_VERSION");
    let mut roff = Vec::new();
    clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .source(format!("balancer {version}"))
        .manual("balancer")
        .render(&mut roff)
        .map_err(|error| Failure::system(error, format!("cannot make the page of {name}")))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn unknown(command: &clap::Command, page: &str, word: &str) -> Failure {
    let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let failure = Failure::usage(format!("{page} has no verb `{word}`, so there is no page of it"));
    let close = suggest(word, known.iter().copied());
    if known.is_empty() {
        failure.hint(format!(
            "balancer man {}",
            page.trim_start_matches("balancer-").replace('-', " ")
        ))
    } else if let Some(close) = close.first() {
        failure.hint(format!("did you mean `{close}`?"))
    } else {
        failure.hint(format!("there are: {}", known.join(", ")))
    }
}
