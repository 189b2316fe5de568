//! The words of `show`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::{args::EXIT_CODES, values::parse_interval};

pub(in crate::cli) const SHOW_ABOUT: &str = "\
Print what is live, with names instead of ids.

Reads the pinned maps; no agent is needed. Names come from the texts of the live set, kept in \
--state.";

pub(in crate::cli) const SHOW_AFTER: &str = "\
Examples:
  balancer show vips
  balancer show vips -o hosts >> /etc/hosts
  balancer show backends -o json
  balancer show flows --limit 20
  balancer show reasons
  balancer show counters --watch 2s                again whenever something changed

Files:
  --bpffs DIR                    the maps that are read
  --state DIR/live-EPOCH.json    where the names come from

";

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Show {
    #[command(subcommand)]
    pub(crate) what: What,
    /// Look again each INTERVAL and print what changed, until ctrl-C [default: 1s]
    ///
    /// Text is redrawn on a terminal, and printed as one block after the other elsewhere; JSON
    /// has one document a line. Another set that is loaded meanwhile comes with its names; after
    /// `unload` it waits for the next load.
    #[arg(
        long,
        global = true,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "1s",
        value_parser = parse_interval
    )]
    pub(crate) watch: Option<Duration>,
}

#[derive(Subcommand, Debug, Clone, Copy)]
pub(crate) enum What {
    /// Addresses that clients dial, with their service and default policy
    ///
    /// One line for each VIP. `policy` and `decision` are those of everybody whose address is no
    /// source; `show routes` has the others. `-o hosts` prints lines for /etc/hosts: SERVICE,
    /// where only one mesh has it, and SERVICE.MESH.
    #[command(after_long_help = EXIT_CODES)]
    Vips,
    /// Workload addresses, with their Dataplanes and class
    ///
    /// Sources with the same routes share a class. Every address that is not listed is in
    /// class 0. `interface` is the only one that packets with this source may come from; none
    /// where that is not checked.
    #[command(after_long_help = EXIT_CODES)]
    Sources,
    /// What each class does with each VIP
    ///
    /// One line for each VIP, for everybody (class 0), and one for each class whose route differs.
    #[command(after_long_help = EXIT_CODES)]
    Routes,
    /// The weighted destinations of each route, with shares and counters
    ///
    /// `share` is the part of the table's slots that the backend has, `seen` its part of the
    /// connections counted so far. The share of a backend that is `empty` or `invalid` is reset.
    #[command(after_long_help = EXIT_CODES)]
    Backends,
    /// Addresses that connections end at, with their live connections
    ///
    /// `ok`: takes new connections. `draining`: in no table, keeps the connections that it has.
    /// `gone`: out of the inventory.
    #[command(after_long_help = EXIT_CODES)]
    Reals,
    /// The compiled table of each route: algorithm, slots, targets, place in the arena
    ///
    /// `offset` and `words` count words of 8 bytes. `previous_slots` is the size of the table
    /// before the last change, as long as it serves connections without an entry.
    #[command(after_long_help = EXIT_CODES)]
    Tables,
    /// Live connections
    ///
    /// One line for each connection, sorted by client. Half-open ones are listed with their
    /// state. Printing stops after --limit lines and says so on standard error.
    #[command(after_long_help = EXIT_CODES)]
    Flows {
        /// Print at most so many; 0: all
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Connections, packets and bytes of each route and backend
    ///
    /// Summed over all CPUs, since the route got its counters. `in` is from clients, `out` from
    /// reals; bytes include the Ethernet header.
    #[command(after_long_help = EXIT_CODES)]
    Counters,
    /// Packets by what became of them, and why
    ///
    /// Every packet that an attached program saw ended in exactly one reason. Those that no
    /// packet had are listed with 0.
    #[command(after_long_help = EXIT_CODES)]
    Reasons,
}
