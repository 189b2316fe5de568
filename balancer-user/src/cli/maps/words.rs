//! What `--help` says of `balancer maps`.

use clap::{Args, Subcommand};

use crate::cli::args::EXIT_CODES;

pub(crate) const MAPS_ABOUT: &str = "\
Print the pinned maps as they are: ids, both halves, empty elements.

Reads the maps alone: no agent, no names, nothing is changed. `balancer show` has the same with \
names; this is for looking at what the programs really see. Addresses, ports and bits are \
decoded, ids stay numbers. Field names are those of the layout, docs/datapath.md.";

pub(crate) const MAPS_AFTER: &str = "\
Examples:
  balancer maps list
  balancer maps dump REALS
  balancer maps lookup VIP_IDS4 240.0.0.3:6379

Files:
  --bpffs DIR/maps/NAME    the maps that are read

";

const DUMP_ABOUT: &str = "\
Print every element of a map.

`key` is what `lookup` takes. Of an array only elements that are not all zeros are printed. An \
array of two halves holds `id` twice: packets read the `current` half, the `other` one is \
written next. Elements of COUNTERS and REASONS are summed over all CPUs; TURNS and NEW_FLOWS have \
each CPU's own. EVENTS and SCRATCH print nothing: nobody else can look at what is in them. Of ARENA the chunks are printed, with the id that `bpftool map dump id` takes; \
`balancer show tables` has the tables in them.";

const LOOKUP_ABOUT: &str = "\
Print one element of a map, by its key.

The key has the form that `dump` prints; the protocol is TCP. Source and destination of a flow \
are those on the wire. An element of an array is printed also when it is empty.";

const LOOKUP_AFTER: &str = "\
Examples:
  balancer maps lookup ROUTES 1
  balancer maps lookup VIP_IDS6 [fd62::3]:6379
  balancer maps lookup SOURCE_IDS4 10.0.0.11
  balancer maps lookup CLASS_ROUTES 1/3
  balancer maps lookup FLOWS4 forward 10.0.0.11:40000 240.0.0.3:6379

Keys:
  VIP_IDS4, VIP_IDS6          ADDRESS:PORT
  SOURCE_IDS4, SOURCE_IDS6, VIP_ADDRESSES4, VIP_ADDRESSES6
                              ADDRESS
  CLASS_ROUTES                CLASS/VIP, both ids
  FLOWS4, FLOWS6, HALF_OPEN4, HALF_OPEN6
                              forward|reply SOURCE:PORT DESTINATION:PORT
  FRAGMENTS                   in|out SOURCE DESTINATION ID PROTOCOL
  the others                  a number: the index of the element

Exit codes:
  0  the element was printed
  1  there is no such element
  2  wrong usage: no such map, or the key has another form
  3  the kernel or a privilege is at fault";

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Maps {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// The maps, how full they are, and the setting that sizes each
    ///
    /// `type` is the kernel's. `key size` and `value size` are bytes, of one CPU's value. `used` counts elements; of an
    /// array, those that are not all zeros, in both halves where it has two. `memory` is in
    /// bytes, as the kernel accounts for it; that of ARENA includes its chunks.
    #[command(after_long_help = EXIT_CODES)]
    List,
    /// Every element of a map
    #[command(long_about = DUMP_ABOUT, after_long_help = EXIT_CODES)]
    Dump {
        /// The map, as `maps list` names it
        name: String,
        /// Empty elements of arrays too
        #[arg(long)]
        all: bool,
    },
    /// One element of a map
    #[command(long_about = LOOKUP_ABOUT, after_long_help = LOOKUP_AFTER)]
    Lookup {
        /// The map, as `maps list` names it
        name: String,
        /// The key, in the form that `maps dump` prints
        #[arg(required = true)]
        key: Vec<String>,
    },
}
