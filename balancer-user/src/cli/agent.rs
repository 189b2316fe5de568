//! `balancer agent`: the words around the room `agent`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    args::{Form, Global},
    failure::Failure,
    inputs, output,
};
use crate::{
    agent::{self, AgentError, Start},
    policy::ReadOptions,
    settings::LogForm,
};

/// Where the configuration is looked for where `--config` names none.
const DEFAULT_CONFIG: &str = "/etc/balancer/config.yaml";

pub(super) const AGENT_ABOUT: &str = "\
Keep what is live true to policies, interfaces and names.

Adopts what is pinned, or loads it; then watches the policy paths, interfaces, addresses and \
routes, and publishes what follows from their changes. A file that is broken, a directory that is \
gone or a set that does not fit changes nothing: the last good set stays live, and the log and \
`balancer status` say why.

Stopping the agent (SIGTERM) touches nothing: the datapath forwards by the last set, and the next \
agent adopts it. With `forwarding: auto` packets go through the stack once no agent has looked for \
firewall rules for 10 s. SIGHUP reads the configuration file again, which is watched too. Under systemd it tells when it is ready or reloading, and answers the watchdog.";

pub(super) const AGENT_AFTER: &str = "\
Examples:
  balancer config --example > /etc/balancer/config.yaml
  balancer agent
  balancer agent --config staging.yaml --bpffs /sys/fs/bpf/staging --state /var/lib/staging
  balancer agent --log-format json

Files:
  /etc/balancer/config.yaml     the configuration, where --config names no other
  --bpffs DIR                   pinned programs, maps and links; the lock of the writer
  --state DIR                   VIP assignments, the live set, and agent.json for `status`

";

/// `agent`.
#[derive(Args, Debug)]
pub(crate) struct Agent {
    /// Configuration file (YAML) [default: /etc/balancer/config.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the log on standard error; `log.format` of the configuration otherwise
    #[arg(long, value_name = "text|json", hide_possible_values = true)]
    log_format: Option<LogFormat>,
    /// Take the place of the agent that runs, if one does, without a failed request
    #[arg(long)]
    take_over: bool,
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(args: &Agent, global: &Global) -> Result<(), Failure> {
    if global.output != Form::Text {
        return Err(Failure::usage("`agent` prints nothing on standard output, so -o has no use")
            .hint("balancer agent --log-format json"));
    }
    let path = args.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let path = std::path::absolute(&path).unwrap_or(path);
    let (mut settings, texts) = inputs::settings_with_text(&path)?;
    inputs::undone(&settings, &texts)?;
    if let Some(form) = args.log_format {
        settings.log.form = match form {
            LogFormat::Text => LogForm::Text,
            LogFormat::Json => LogForm::Json,
        };
    }
    let (bpffs, state) = (global.bpffs(Some(&settings)), global.state(Some(&settings)));
    if args.take_over && !settings.policies.is_empty() {
        // Who cannot do better leaves the other one in its place.
        let reading = inputs::read(&settings.policies, &ReadOptions::default())?;
        inputs::accept(&reading.report)?;
    }
    let (take_over, colours) = (args.take_over, output::stderr_colours());
    let start = Start { settings, config: Some(path), bpffs, state, colours, take_over };
    agent::run(start).map_err(|error| match error {
        AgentError::Node(error) => inputs::node(error),
        AgentError::TakeOver { agent, source } => {
            Failure::system(source, format!("cannot take over from the agent that runs ({agent})"))
                .hint("stop that agent, then start this one without --take-over")
        }
        AgentError::System { doing, source } => Failure::system(source, doing),
    })
}
