//! `balancer show`: what the live maps hold, with names.
//!
//! Each verb makes rows; field names are the same in every form. Rows are sorted by what they
//! are about, so that two runs can be compared line by line.

use super::{
    args::{Form, Global, Show, What},
    failure::Failure,
    inputs, live, output,
};

mod flows;
mod hosts;
mod reals;
mod routes;
mod vips;

pub(super) use vips::interface;

pub(crate) fn run(args: &Show, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    match args.what {
        What::Vips if form == Form::Hosts => output::data(&live::read(global, hosts::text)?),
        _ if form == Form::Hosts => Err(output::hosts_refused()),
        What::Vips => output::rows(form, &live::read(global, vips::vips)?, "no VIP is published"),
        What::Sources => {
            output::rows(form, &live::read(global, vips::sources)?, "no source is published")
        }
        What::Routes => {
            output::rows(form, &live::read(global, routes::routes)?, "no route is published")
        }
        What::Backends => {
            output::rows(form, &live::read(global, routes::backends)?, "no backend is published")
        }
        What::Tables => {
            output::rows(form, &live::read(global, routes::tables)?, "no table is published")
        }
        What::Counters => {
            output::rows(form, &live::read(global, routes::counters)?, "no route has counters")
        }
        What::Reals => {
            output::rows(form, &live::read(global, reals::reals)?, "no real is published")
        }
        What::Flows { limit } => flows::print(global, limit),
        // Packets have reasons whatever the names, so the texts are not asked for.
        What::Reasons => output::rows(form, &reals::reasons(&live::view(global)?)?, "no reason"),
    }
}

/// Why reading the maps failed.
fn failed(error: crate::kernel::KernelError) -> Failure {
    inputs::kernel(error, "cannot read the live maps")
}
