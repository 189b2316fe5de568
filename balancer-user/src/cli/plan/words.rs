//! The words of `plan`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Files;

pub(in crate::cli) const PLAN_ABOUT: &str = "\
Say what loading policies would change, and write nothing.

Compares the policies given with what is live, or with other files: which VIPs, sources and \
classes come and go; for each route that changes, what each backend and real gets before and \
after, how many slots of its table move and how few could, and whether the table takes another \
size; which matches of HTTP rules come, go, change or are tried in another order, and what of their \
requests each backend gets; what becomes of connections that are live; how much room the maps \
have; and which findings are new. Policies that `load` would refuse are refused here too.";

pub(in crate::cli) const PLAN_AFTER: &str = "\
Examples:
  balancer plan -f policies/                       against what is live
  balancer plan -f new/ --against policies/        against files; needs no privilege
  balancer plan -f policies/ -o json

Shares are parts of the table's slots: 0.9 means nine of ten connections. Slots that move \
matter where a slot is found by hash: connections without a flow entry go to the real that \
their slot names now. Connections with one stay on their real while it is in the inventory.

HTTP rules are told match by match: + comes, - goes, ~ gets something else, > is tried before or \
behind others than before. No live connection is at risk by them: this version has no proxy that \
carries them out.

The exit code is 0 whether or not anything would change; `-o json` has the difference.

";

#[derive(Args, Debug)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) files: Files,
    /// What to compare with: live, or files and directories (a file called live: ./live)
    #[arg(long, value_name = "live|PATH", num_args = 1.., default_value = "live")]
    pub(crate) against: Vec<PathBuf>,
    /// Configuration file: vips, zone, no_route and limits decide too
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
