//! `balancer config`: an example of the configuration file, or a check of one.

use std::path::PathBuf;

use clap::Args;

use super::{
    args::{Form, Global},
    failure::Failure,
    inputs, output,
};
use crate::settings::EXAMPLE;

pub(super) const CONFIG_ABOUT: &str = "\
Print a configuration file, or check one.

--example prints every key with its default and what it does. With -f the file is read as \
`balancer agent` reads it: unknown keys, wrong types and what is not carried out yet are errors \
with line and column. Neither needs a privilege or changes anything.";

pub(super) const CONFIG_AFTER: &str = "\
Examples:
  balancer config --example > /etc/balancer/config.yaml
  balancer config -f /etc/balancer/config.yaml

";

/// `config`.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Config {
    /// Print every key with its default and a comment
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    example: bool,
    /// Configuration file to check
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(args: &Config, global: &Global) -> Result<(), Failure> {
    if global.output != Form::Text {
        return Err(Failure::usage("a configuration file is YAML; -o has no use here"));
    }
    let Some(path) = &args.file else { return output::data(EXAMPLE) };
    let (settings, texts) = inputs::settings_with_text(path)?;
    inputs::undone(&settings, &texts)?;
    output::say(&format!("{} is fine", path.display()));
    Ok(())
}
