//! The command line: every word that `--help` says.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    agent::{AGENT_ABOUT, AGENT_AFTER, Agent},
    config::{CONFIG_ABOUT, CONFIG_AFTER, Config},
    forwarding,
    man::{MAN_ABOUT, MAN_AFTER, Man},
    maps::words::{MAPS_ABOUT, MAPS_AFTER, Maps},
    plan::words::{PLAN_ABOUT, PLAN_AFTER, Plan},
    schema::{SCHEMA_ABOUT, SCHEMA_AFTER, Schema},
    show::words::{SHOW_ABOUT, SHOW_AFTER, Show},
    trace::words::{TRACE_ABOUT, TRACE_AFTER, Trace},
    values::{Tuple, parse_attach, parse_header, parse_protocol, parse_tuple},
};
use crate::{
    kernel::Attachment,
    policy::Api,
    resolve::VipProtocol,
    settings::{DEFAULT_BPFFS, DEFAULT_STATE, Settings},
};

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the policies are at fault: invalid, contradictory, or more than the limits hold
  2  wrong usage: the command line or the configuration file
  3  the kernel, a privilege or the state directory is at fault";

const ABOUT: &str = "\
Splits TCP connections over services by policy, in the kernel.

balancer reads the policies of a Kuma mesh (TrafficRoute, MeshTCPRoute), of the Gateway API \
(TCPRoute) and what they name, compiles them into eBPF maps and attaches two TC programs to \
interfaces. From then on the kernel carries them out alone: nothing in user space touches a \
packet. `load` does so once; `agent` keeps what is live true to files, interfaces and names.";

const MAIN_AFTER: &str = "\
Examples:
  balancer check -f policies/                      validate, change nothing
  balancer plan -f policies/                       what a load would change
  balancer load -f policies/ --attach veth0=tc     carry the policies out
  balancer load -f policies/                       publish changed files; no connection breaks
  balancer agent --config FILE                     do so whenever something changes
  balancer explain --from web-1 --to redis         where a connection would go, and why
  balancer status                                  what is loaded, and what stands in its way
  balancer unload                                  remove everything

Files:
  /sys/fs/bpf/balancer   pinned programs, maps and links (--bpffs)
  /var/lib/balancer      VIP assignments and the texts of the live set (--state)

Several instances can stand side by side, each with directories of its own. Data goes to \
standard output, talk to standard error. Colours are off when NO_COLOR is set or the output is \
no terminal.

";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "balancer",
    version,
    about = "Splits TCP connections over services by policy, in the kernel",
    long_about = ABOUT,
    after_long_help = format!("{MAIN_AFTER}{EXIT_CODES}"),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Debug, Clone)]
pub(crate) struct Global {
    /// Directory of the pins, inside a bpf file system [default: /sys/fs/bpf/balancer]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) bpffs: Option<PathBuf>,
    /// Directory of VIP assignments and of the texts of the live set [default: /var/lib/balancer]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) state: Option<PathBuf>,
    /// text for people; json or yaml with the same fields; hosts for `show vips` [default: text]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORM",
        default_value = "text",
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = "Everywhere"
    )]
    pub(crate) output: Form,
}

impl Global {
    /// The pin directory: the flag, else the configuration's, else the default.
    pub(crate) fn bpffs(&self, configured: Option<&Settings>) -> PathBuf {
        absolute(self.bpffs.as_deref(), configured.map(|settings| &*settings.bpffs), DEFAULT_BPFFS)
    }

    /// The state directory: the flag, else the configuration's, else the default.
    pub(crate) fn state(&self, configured: Option<&Settings>) -> PathBuf {
        absolute(self.state.as_deref(), configured.map(|settings| &*settings.state), DEFAULT_STATE)
    }
}

/// Absolute, so that a record names the same directory from wherever it is read.
fn absolute(flag: Option<&Path>, configured: Option<&Path>, default: &str) -> PathBuf {
    let path = flag.or(configured).unwrap_or(Path::new(default));
    // Fails for an empty path, or where the working directory is gone: then the path as given
    // meets its error where it is used.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Form of the output.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// Lines for /etc/hosts (`show vips` only)
    Hosts,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check, compile and publish policies; attach to interfaces
    #[command(long_about = LOAD_ABOUT, after_long_help = format!("{LOAD_AFTER}{EXIT_CODES}"))]
    Load(Load),
    /// Keep what is live true to policies, interfaces and names
    #[command(long_about = AGENT_ABOUT, after_long_help = format!("{AGENT_AFTER}{EXIT_CODES}"))]
    Agent(Agent),
    /// Print a configuration file, or check one
    #[command(long_about = CONFIG_ABOUT, after_long_help = format!("{CONFIG_AFTER}{EXIT_CODES}"))]
    Config(Config),
    /// Remove everything of ours: programs, maps, links, qdiscs, pins
    #[command(long_about = UNLOAD_ABOUT, after_long_help = format!("{UNLOAD_AFTER}{EXIT_CODES}"))]
    Unload,
    /// Validate policies without touching anything
    #[command(long_about = CHECK_ABOUT, after_long_help = format!("{CHECK_AFTER}{EXIT_CODES}"))]
    Check(Check),
    /// Say what loading policies would change
    #[command(long_about = PLAN_ABOUT, after_long_help = format!("{PLAN_AFTER}{EXIT_CODES}"))]
    Plan(Plan),
    /// Say where a connection would go, and why
    #[command(long_about = EXPLAIN_ABOUT, after_long_help = format!("{EXPLAIN_AFTER}{EXIT_CODES}"))]
    Explain(Explain),
    /// Print what is live, with names instead of ids
    #[command(long_about = SHOW_ABOUT, after_long_help = format!("{SHOW_AFTER}{EXIT_CODES}"))]
    Show(Show),
    /// Print the pinned maps as they are: ids, both halves, empty elements
    #[command(long_about = MAPS_ABOUT, after_long_help = format!("{MAPS_AFTER}{EXIT_CODES}"))]
    Maps(Maps),
    /// Follow new flows and refused packets as they come, with names
    #[command(long_about = TRACE_ABOUT, after_long_help = format!("{TRACE_AFTER}{EXIT_CODES}"))]
    Trace(Trace),
    /// Say what is loaded and attached, how full it is, and what stands in its way
    #[command(long_about = STATUS_ABOUT, after_long_help = format!("{STATUS_AFTER}{EXIT_CODES}"))]
    Status(Status),
    /// Print a JSON schema of a kind of policy, for editors
    #[command(long_about = SCHEMA_ABOUT, after_long_help = format!("{SCHEMA_AFTER}{EXIT_CODES}"))]
    Schema(Schema),
    /// Print a completion script for a shell
    #[command(long_about = COMPLETIONS_ABOUT, after_long_help = COMPLETIONS_AFTER)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    #[command(long_about = MAN_ABOUT, after_long_help = MAN_AFTER)]
    Man(Man),
}

const LOAD_ABOUT: &str = "\
Check, compile and publish policies; attach to interfaces.

One shot, without an agent. The policies given are the whole set: what is not among them is \
no longer carried out. The first load creates the maps with the sizes of the configuration \
and pins them; a later one publishes into what is pinned. Packets see all of the old set or \
all of the new; established connections stay where they are. A load that fails leaves what \
was running untouched.

Only one process writes at a time; a second one is refused with the id of the first.";

const LOAD_AFTER: &str = "\
Examples:
  balancer load -f policies/ --attach veth0=tc --attach eth0=tc
  balancer load -f policies/ -f extra.yaml
  generate-policies | balancer load -f - --config /etc/balancer/config.yaml

Of the configuration file it uses limits, vips, zone, no_route, forwarding, snat, drain.on_gone, \
drain.previous_for, bpffs and state, and says which keys it leaves to the agent. Without \
--config the sizes of what is pinned are kept; sizes that differ from those pinned are \
refused: `balancer unload` first.

Files:
  --bpffs DIR                    pinned programs, maps and links; the lock of the writer
  --state DIR/vips.json          the VIP of each service, kept from load to load
  --state DIR/live-EPOCH.json    what the live set was made of: `show` has its names from there
  --state DIR/texts/             the policy texts themselves

";

#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Interface to attach to, and the hook: IFACE=tc[:snat], IFACE=xdp[:MODE][:generic][:snat]
    ///
    /// The programs decide by what a packet is, not by a role of the interface: name those that
    /// clients are behind and those that reals are behind. Interfaces attached by an earlier
    /// load stay attached.
    ///
    /// tc is ingress and egress. xdp is for edges: in the driver, and tc for what it leaves; generic: before the stack, where
    /// the driver runs no XDP programs. MODE is nat (the default: addresses are translated, both
    /// ways), dsr-l2 or dsr-ipip: packets go on as they are, in frames addressed to the real or in a
    /// tunnel to it; the real has the VIP's address and port, and answers the client by itself.
    ///
    /// snat: reals see this node as the client of what comes in there, with a port of `snat` in the
    /// configuration, so that their answers come here whatever their routes.
    #[arg(long, value_name = "IFACE=HOOK", value_parser = parse_attach)]
    pub(crate) attach: Vec<Attachment>,
    /// How translated packets go on: auto, stack or direct [default: stack, or the configuration's]
    ///
    /// stack: the kernel routes them. direct: past the stack to the next interface, also past
    /// firewalls, conntrack and programs of others. auto: direct where none of these is there now;
    /// unlike the agent, load does not look again when rules come later.
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    pub(crate) forwarding: Option<forwarding::Flag>,
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `-f`, required.
#[derive(Args, Debug)]
pub(crate) struct Files {
    /// File, directory (*.yaml, *.yml, *.json, recursive, no hidden ones) or - for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) file: Vec<PathBuf>,
}

const UNLOAD_ABOUT: &str = "\
Remove everything of ours: programs, maps, links, qdiscs, pins.

From then on packets to VIPs are the stack's business. Connections through VIPs break, since \
nobody translates their packets any more. VIP assignments are kept in --state, so that a later \
load gives every service the VIP it had. With nothing loaded it says so and is content.";

const UNLOAD_AFTER: &str = "\
Examples:
  balancer unload
  balancer unload --bpffs /sys/fs/bpf/staging --state /var/lib/balancer-staging

Files:
  --bpffs DIR              removed
  --state DIR/vips.json    kept
  --state DIR/live-*.json  removed, and the texts that they name

";

const CHECK_ABOUT: &str = "\
Validate policies without touching anything.

Needs no privilege and no kernel feature. Every violation is reported, not only the first, \
each with its field path, line and column. Without --strict and --api, what any supported \
version of Kuma accepts is accepted, where balancer is more lenient than all of them there is a \
warning, and what stands between resources is judged as `load` would: a VIP claimed twice, \
a route that names no service.";

const CHECK_AFTER: &str = "\
Examples:
  balancer check -f policies/
  balancer check -f route.yaml --api kuma-2.7
  kubectl get trafficroutes -o yaml | balancer check -f - -o json

A summary goes to standard error, violations to standard output. Warnings alone leave the \
exit code at 0.

";

#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Accept only what the reference validation accepts, without leniency
    #[arg(long)]
    pub(crate) strict: bool,
    /// Unknown fields are errors in every kind, also where Kuma ignores them
    #[arg(long)]
    pub(crate) deny_unknown: bool,
    /// Judge by exactly that version of Kuma; implies --strict
    #[arg(long, value_name = "kuma-2.7|kuma-2.9|kuma-3")]
    pub(crate) api: Option<Api>,
}

const EXPLAIN_ABOUT: &str = "\
Say where a connection or a request would go, and why.

With -f it answers from files and needs no privilege; without, from what is live. With --method, \
--path, --host or --header it says what the HTTP rules of the route make of such a request: which \
rule takes it, who gets which share, what the backend sees and what is answered. With --tuple it \
asks the loaded program itself, with a packet that leaves no trace.";

const EXPLAIN_AFTER: &str = "\
Examples:
  balancer explain --from web-1 --to redis
  balancer explain -f policies/ --from kuma.io/service=web,version=2 --to redis:6379
  balancer explain --from 10.0.0.11 --to 240.0.0.3:6379 -o json
  balancer explain --from web-1 --to backend --path /api/items --header x-canary:yes
  balancer explain --from web-1 --to backend --all
  balancer explain --tuple 10.0.0.11:40000,240.0.0.3:6379

--from is the name of a Dataplane, an address, or tags k=v,k=v. --to is a service, a service \
and port, or the address and port of a VIP. An IPv6 address with a port is written [fd00::1]:80.

Of a request, what is not given is GET, the path / and the name that is dialled. --all lists every \
match of HTTP rules in the order in which they are tried, with what a request that it takes meets.

Every share is of the whole: 0.9 means nine of ten connections or requests. This version has no \
proxy that carries HTTP rules out: the steps say what connections get meanwhile.

";

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// File, directory or - for standard input; without it the live set answers
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Configuration file for -f: vips, zone and no_route decide too
    #[arg(long, value_name = "FILE", requires = "file")]
    pub(crate) config: Option<PathBuf>,
    /// Who connects: Dataplane name, address, or tags k=v,k=v
    #[arg(long, value_name = "SOURCE", required_unless_present = "tuple")]
    pub(crate) from: Option<String>,
    /// What is dialled: SERVICE, SERVICE:PORT or ADDRESS:PORT
    #[arg(long, value_name = "DESTINATION", required_unless_present = "tuple")]
    pub(crate) to: Option<String>,
    /// What it is dialled with, where both are: tcp or udp [default: tcp]
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    pub(crate) protocol: Option<VipProtocol>,
    /// Method of the request [default: GET]
    #[arg(long, value_name = "METHOD", conflicts_with = "tuple")]
    pub(crate) method: Option<String>,
    /// Path of the request, with query [default: /]
    #[arg(long, value_name = "PATH", conflicts_with = "tuple")]
    pub(crate) path: Option<String>,
    /// Host of the request [default: the name that is dialled]
    #[arg(long, value_name = "HOST", conflicts_with = "tuple")]
    pub(crate) host: Option<String>,
    /// A header of the request; as often as needed
    #[arg(long, value_name = "NAME:VALUE", value_parser = parse_header, conflicts_with = "tuple")]
    pub(crate) header: Vec<(String, String)>,
    /// List every route of the destination in order of precedence
    #[arg(long, conflicts_with = "tuple")]
    pub(crate) all: bool,
    /// Ask the loaded program about one connection: SOURCE:PORT,VIP:PORT
    #[arg(
        long,
        value_name = "SRC:PORT,DST:PORT",
        value_parser = parse_tuple,
        conflicts_with_all = ["file", "from", "to"]
    )]
    pub(crate) tuple: Option<Tuple>,
}

const STATUS_ABOUT: &str = "\
Say what is loaded and attached, how full it is, and what stands in its way.

Prints the epoch, programs, hooks and interfaces, the fill of each map with the setting that \
sizes it, and what of the node's own settings (forwarding, reverse path filter) would keep \
packets from arriving. `Kernel` names what this kernel lacks that balancer can do without, and \
what is used instead. Changes nothing. With nothing loaded it says so and exits with 0.";

const STATUS_AFTER: &str = "\
Examples:
  balancer status
  balancer status -o json
  balancer status --requirements                   before the first load, or when one is refused

With --requirements it exits with 0 where balancer runs, fall-backs included, and with 3 where \
something is missing that it cannot do without.

";

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Probe what balancer needs of the kernel instead, whether or not anything is loaded
    ///
    /// Every feature is tried, down to balancer's own programs, and nothing is left behind. Each
    /// line says whether this kernel has the feature, the first kernel that has it, and what its
    /// lack costs.
    #[arg(long)]
    pub(crate) requirements: bool,
}

const COMPLETIONS_ABOUT: &str = "\
Print a completion script for a shell.";

const COMPLETIONS_AFTER: &str = "\
Examples:
  balancer completions bash > /etc/bash_completion.d/balancer
  balancer completions zsh > ~/.zfunc/_balancer
  balancer completions fish > ~/.config/fish/completions/balancer.fish";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
