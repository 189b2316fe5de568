//! `balancer maps`: the pinned maps without names, element by element.

use serde::Serialize;

use self::{
    key::Key,
    words::{Maps, Verb},
};
use super::{args::Global, failure::Failure, inputs, live, output};
use crate::{
    kernel::{KernelError, MapRow, View},
    policy::suggest::suggest,
};

mod key;
mod rows;
pub(super) mod words;

pub(crate) fn run(args: &Maps, global: &Global) -> Result<(), Failure> {
    match &args.verb {
        Verb::List => {
            let maps = live::view(global)?.maps().map_err(failed)?;
            let lines: Vec<MapLine> = maps.into_iter().map(MapLine::from).collect();
            output::rows(global.output, &lines, "no map is pinned")
        }
        Verb::Dump { name, all } => {
            let name = known(name)?;
            let rows = rows::all(&live::view(global)?, name, *all).map_err(failed)?;
            output::rows(global.output, &rows, &format!("{name} has no element in use"))
        }
        Verb::Lookup { name, key } => {
            let name = known(name)?;
            let key = Key::parse(name, &key.join(" ")).map_err(Failure::usage)?;
            match rows::one(&live::view(global)?, name, &key).map_err(failed)? {
                Some(row) => output::rows(global.output, &[row], ""),
                None => Err(Failure::absent(format!("{name} has no element {key}"))
                    .hint(format!("balancer maps dump {name}"))),
            }
        }
    }
}

#[derive(Serialize)]
struct MapLine {
    map: &'static str,
    /// The kernel's, in bpftool's words.
    #[serde(rename = "type")]
    kind: String,
    /// Bytes.
    key_size: u32,
    /// Bytes, of one CPU's value.
    value_size: u32,
    /// Elements.
    used: u64,
    /// Elements.
    capacity: u32,
    /// Bytes.
    memory: u64,
    /// `null`: its size is fixed.
    setting: Option<&'static str>,
}

impl From<MapRow> for MapLine {
    fn from(row: MapRow) -> Self {
        Self {
            map: row.name,
            kind: row.kind,
            key_size: row.key_size,
            value_size: row.value_size,
            used: row.used,
            capacity: row.capacity,
            memory: row.memory,
            setting: Some(row.setting).filter(|setting| !setting.is_empty()),
        }
    }
}

/// The map that a word names, in upper or lower case.
fn known(word: &str) -> Result<&'static str, Failure> {
    if let Some(name) = View::map_names().find(|name| name.eq_ignore_ascii_case(word)) {
        return Ok(name);
    }
    let names: Vec<&str> = View::map_names().collect();
    let mut failure = Failure::usage(format!("there is no map `{word}`"));
    if let Some(close) = suggest(word, names.iter().copied()).first() {
        failure = failure.hint(format!("did you mean `{close}`?"));
    }
    Err(failure.hint(format!("there are: {}", names.join(", "))))
}

fn failed(error: KernelError) -> Failure {
    inputs::kernel(error, "cannot read the pinned maps")
}
