//! `balancer show`: what the live maps hold, with names.
//!
//! Each verb makes rows; field names are the same in every form. Rows are sorted by what they
//! are about, so that two runs can be compared line by line.

use serde::Serialize;
use serde_json::Value;

use self::words::{Show, What};
use super::{
    args::{Form, Global},
    failure::Failure,
    inputs,
    live::{self, LiveSet},
    output,
};

mod flows;
mod hosts;
mod reals;
mod routes;
mod vips;
mod watch;
pub(crate) mod words;

pub(super) use vips::interface;

pub(crate) fn run(args: &Show, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts && (!matches!(args.what, What::Vips) || args.watch.is_some()) {
        return Err(output::hosts_refused());
    }
    if let Some(interval) = args.watch {
        return watch::run(args.what, interval, global);
    }
    match args.what {
        What::Vips if form == Form::Hosts => output::data(&live::read(global, hosts::text)?),
        // Packets have reasons whatever the names, so the texts are not asked for.
        What::Reasons => Rows::of(reals::reasons(&live::view(global)?)?, "no reason")?.print(form),
        what => live::read(global, |live| rows(what, live))?.print(form),
    }
}

/// What a verb has to show.
#[derive(PartialEq)]
struct Rows {
    /// A list of objects.
    rows: Value,
    /// What is said of an empty list.
    nothing: &'static str,
    /// What is said besides.
    note: Option<String>,
}

impl Rows {
    fn of<T: Serialize>(rows: Vec<T>, nothing: &'static str) -> Result<Self, Failure> {
        let rows = serde_json::to_value(rows)
            .map_err(|error| Failure::system(error, "cannot print the rows"))?;
        Ok(Self { rows, nothing, note: None })
    }

    fn print(&self, form: Form) -> Result<(), Failure> {
        output::rows(form, &self.rows, self.nothing)?;
        if let Some(note) = &self.note {
            output::say(note);
        }
        Ok(())
    }
}

fn rows(what: What, live: &LiveSet) -> Result<Rows, Failure> {
    match what {
        What::Vips => Rows::of(vips::vips(live)?, "no VIP is published"),
        What::Sources => Rows::of(vips::sources(live)?, "no source is published"),
        What::Routes => Rows::of(routes::routes(live)?, "no route is published"),
        What::Backends => Rows::of(routes::backends(live)?, "no backend is published"),
        What::Tables => Rows::of(routes::tables(live)?, "no table is published"),
        What::Counters => Rows::of(routes::counters(live)?, "no route has counters"),
        What::Reals => Rows::of(reals::reals(live)?, "no real is published"),
        What::Flows { limit } => flows::rows(live, limit),
        What::Reasons => Rows::of(reals::reasons(&live.view)?, "no reason"),
    }
}

/// Why reading the maps failed.
fn failed(error: crate::kernel::KernelError) -> Failure {
    inputs::kernel(error, "cannot read the live maps")
}
