//! `balancer unload`: remove everything of ours.

use serde::Serialize;

use super::{
    args::{Form, Global},
    failure::Failure,
    inputs,
    output::{self, count},
};
use crate::{
    kernel::{self, KernelError, Unloaded},
    store::Store,
};

pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    if global.output == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let (bpffs, state) = (global.bpffs(None), global.state(None));
    let removed = match kernel::unload(&bpffs) {
        Ok(removed) => removed,
        Err(KernelError::NotLoaded { .. }) => Unloaded::default(),
        Err(error) => return Err(inputs::kernel(error, "cannot unload")),
    };
    // The maps are gone, so the records of what they held mean nothing any more.
    Store::open(&state).and_then(|store| store.forget_instance(&bpffs)).map_err(inputs::store)?;
    let outcome = Outcome {
        // The directory alone is nothing: it may be the mount point of the file system.
        unloaded: removed != Unloaded::default(),
        links: removed.links,
        qdiscs: removed.qdiscs,
        rules: removed.rules,
        programs: removed.programs,
        maps: removed.maps,
    };
    output::value(global.output, &outcome, |outcome| {
        if !outcome.unloaded {
            return format!("nothing is loaded at {}\n", bpffs.display());
        }
        let mut text: String =
            outcome.links.iter().map(|link| format!("detached: {link}\n")).collect();
        text.extend(outcome.qdiscs.iter().map(|name| format!("removed: clsact qdisc of {name}\n")));
        text.extend(outcome.rules.iter().map(|rule| format!("removed: {rule}\n")));
        text + &format!(
            "removed: {} and {} from {}\n",
            count(outcome.programs.len(), "program"),
            count(outcome.maps.len(), "map"),
            bpffs.display()
        )
    })
}

/// What was removed.
#[derive(Serialize)]
struct Outcome {
    unloaded: bool,
    links: Vec<String>,
    qdiscs: Vec<String>,
    rules: Vec<String>,
    programs: Vec<String>,
    maps: Vec<String>,
}
