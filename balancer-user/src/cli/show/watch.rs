//! `show … --watch`: the same rows again whenever something changed.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
};

use super::{Rows, rows, words::What};
use crate::{
    cli::{
        args::{Form, Global},
        failure::Failure,
        inputs, interrupts,
        live::{self, LiveSet, Names},
        output,
    },
    kernel::{Datapath, KernelError},
};

/// What was looked at last.
enum Seen {
    /// Nothing yet.
    Nothing,
    /// There was nothing to look at.
    NotLoaded,
    /// These rows.
    Rows(Rows),
}

pub(super) fn run(what: What, interval: Duration, global: &Global) -> Result<(), Failure> {
    let interrupts = interrupts::wait_for()?;
    let mut live = None;
    let mut seen = Seen::Nothing;
    loop {
        match look(what, &mut live, global)? {
            Some(rows) => {
                let returned = matches!(seen, Seen::NotLoaded);
                if !matches!(&seen, Seen::Rows(before) if *before == rows) {
                    if !print(&rows, matches!(seen, Seen::Nothing), global.output)? {
                        return Ok(());
                    }
                    if returned {
                        output::say("note: it is loaded again");
                    }
                    seen = Seen::Rows(rows);
                }
            }
            None if !matches!(seen, Seen::NotLoaded) => {
                output::say(&format!(
                    "note: nothing is loaded at {}; waiting for it",
                    global.bpffs(None).display()
                ));
                seen = Seen::NotLoaded;
            }
            None => {}
        }
        if interrupted(&interrupts, interval)? {
            return Ok(());
        }
    }
}

/// Rows of what is live; `None`: nothing is loaded. Names are made once for each set.
fn look(what: What, live: &mut Option<LiveSet>, global: &Global) -> Result<Option<Rows>, Failure> {
    let bpffs = global.bpffs(None);
    loop {
        if live.as_ref().is_some_and(|live| live.is_replaced() || !live.view.is_pinned()) {
            *live = None;
        }
        let known = match live {
            Some(known) => known,
            None => {
                let view = match Datapath::open_read_only(&bpffs) {
                    Ok(view) => view,
                    Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(inputs::kernel(error, "cannot read the live set")),
                };
                // Packets have reasons whatever the names.
                let opened = match what {
                    What::Reasons => {
                        let epoch = view.epoch();
                        Some(LiveSet { view, epoch, names: Names::default() })
                    }
                    _ => live::named(view, &global.state(None))?,
                };
                let Some(opened) = opened else { continue };
                live.insert(opened)
            }
        };
        match rows(what, known) {
            _ if known.is_replaced() => {}
            rows => return rows.map(Some),
        }
    }
}

/// Prints; whether somebody still reads.
fn print(rows: &Rows, first: bool, form: Form) -> Result<bool, Failure> {
    let terminal = io::stdout().is_terminal();
    let text = match form {
        Form::Json => rows.rows.to_string() + "\n",
        Form::Yaml => {
            let yaml = serde_yaml::to_string(&rows.rows)
                .map_err(|error| Failure::system(error, "cannot print as YAML"))?;
            format!("---\n{yaml}")
        }
        Form::Text | Form::Hosts => {
            let table = match rows.rows.as_array().is_some_and(Vec::is_empty) {
                true => format!("{}\n", rows.nothing),
                false => output::table(&rows.rows),
            };
            // Home, then clear to the end: nothing flickers.
            let before = match (terminal, first) {
                (true, _) => "\x1b[H\x1b[2J",
                (false, true) => "",
                (false, false) => "\n",
            };
            let note = rows.note.as_ref().map_or(String::new(), |note| format!("{note}\n"));
            format!("{before}{table}{note}")
        }
    };
    output::heard(&text)
}

/// Waits; whether ctrl-C came.
fn interrupted(interrupts: &SignalFd, within: Duration) -> Result<bool, Failure> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut wanted = [PollFd::new(interrupts.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, timeout)
        .map(|ready| ready > 0)
        .map_err(|error| Failure::system(error, "cannot wait for signals"))
}
