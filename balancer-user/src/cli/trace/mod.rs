//! `balancer trace`: new flows and refused packets as they come.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use balancer_ebpf::reason::Reason;
use nix::sys::signalfd::SignalFd;
use serde_json::json;

use self::{
    line::{Line, matches},
    names::Known,
    words::Trace,
};
use super::{
    args::{Form, Global},
    failure::Failure,
    inputs, interrupts, live,
    output::{self, count},
};
use crate::kernel::{Event, KernelError, Told, TraceRequest, Tracer};

mod line;
mod names;
pub(super) mod words;

/// Events that are taken before anything else is looked at.
const BATCH: usize = 1024;
/// How often losses are told.
const LOSSES: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &Trace, global: &Global) -> Result<(), Failure> {
    match global.output {
        Form::Text | Form::Json => {}
        Form::Hosts => return Err(output::hosts_refused()),
        Form::Yaml => {
            return Err(Failure::usage("`trace` has no YAML: its output has no end")
                .hint("balancer trace -o json prints one object a line"));
        }
    }
    let known = Known::read(global, args.from.as_deref())?;
    let named = |from: &String| from.parse::<IpAddr>().is_err();
    if !known.recorded && (args.service.is_some() || args.from.as_ref().is_some_and(named)) {
        return Err(live::no_record(global, "cannot find what --service and --from name"));
    }
    if let Some(service) = &args.service {
        known.has_service(service)?;
    }
    if let Some(from) = &args.from {
        known.has_source(from)?;
    }
    let mut following =
        Following { args, global, known: VecDeque::from([known]), counts: Counts::default() };
    let interrupts = interrupts::wait_for()?;
    let request =
        TraceRequest { reasons: reasons(args), sample: args.sample.get(), rate: rate(args) };
    let mut tracer = Tracer::start(&live::view(global)?, request).map_err(failed)?;
    output::say("tracing; ctrl-C ends");
    let ended = following.follow(&mut tracer, &interrupts);
    // Also where it failed: what was told until then is there to be read.
    tracer.stop();
    while following.print(&mut tracer)? == BATCH {}
    following.losses(&tracer.told().map_err(failed)?)?;
    following.summary(&tracer.told().map_err(failed)?)?;
    ended
}

/// The reasons that are asked for.
fn reasons(args: &Trace) -> std::collections::BTreeSet<Reason> {
    if !args.reason.is_empty() {
        return args.reason.iter().copied().collect();
    }
    let asked = |reason: &Reason| {
        reason.begins_flow() && !args.drops || reason.refuses() && !args.new_flows
    };
    Reason::ALL.iter().copied().filter(asked).collect()
}

fn rate(args: &Trace) -> Option<u32> {
    (args.rate > 0).then_some(args.rate)
}

fn failed(error: KernelError) -> Failure {
    inputs::kernel(error, "cannot trace")
}

/// Events that were taken.
#[derive(Default)]
struct Counts {
    new: usize,
    refused: usize,
    /// Taken, but not asked for.
    others: usize,
    /// As last told.
    told: Told,
}

impl Counts {
    fn printed(&self) -> usize {
        self.new + self.refused
    }
}

/// A trace that runs.
struct Following<'a> {
    args: &'a Trace,
    global: &'a Global,
    /// The names of the last two epochs, the newest first.
    known: VecDeque<Known>,
    counts: Counts,
}

impl Following<'_> {
    /// Prints events until the end that was asked for, an interrupt, or the end of the reader.
    fn follow(&mut self, tracer: &mut Tracer, interrupts: &SignalFd) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut told_losses = Instant::now();
        loop {
            self.print(tracer)?;
            if self.left() == 0 {
                return Ok(());
            }
            let left = match self.args.duration {
                Some(duration) => duration.saturating_sub(begun.elapsed()),
                None => LOSSES,
            };
            if left.is_zero() {
                return Ok(());
            }
            if told_losses.elapsed() >= LOSSES {
                self.losses(&tracer.told().map_err(failed)?)?;
                told_losses = Instant::now();
            }
            let woken = tracer
                .wait(interrupts.as_fd(), io::stdout().as_fd(), left.min(LOSSES))
                .map_err(failed)?;
            if woken.readable || woken.closed {
                return Ok(());
            }
        }
    }

    /// How many events are still asked for.
    fn left(&self) -> usize {
        let most = self.args.count.map_or(usize::MAX, |count| count.get() as usize);
        most.saturating_sub(self.counts.printed())
    }

    /// Prints what there is, at most a batch; how many events it took.
    fn print(&mut self, tracer: &mut Tracer) -> Result<usize, Failure> {
        let mut text = String::new();
        let mut taken = 0;
        while taken < BATCH && self.left() > 0 {
            let Some(event) = tracer.next_event().map_err(failed)? else { break };
            taken += 1;
            self.learn(&event)?;
            let known = self.known.iter().find(|known| known.epoch == event.epoch);
            if !matches(&event, known, self.args.service.as_deref()) {
                self.counts.others += 1;
                continue;
            }
            if event.reason.begins_flow() {
                self.counts.new += 1;
            } else {
                self.counts.refused += 1;
            }
            let line = Line::of(&event, known);
            text += &match self.global.output {
                Form::Json => serde_json::to_string(&line)
                    .map_err(|e| Failure::system(e, "cannot print as JSON"))?,
                _ => line.text(event.reason),
            };
            text.push('\n');
        }
        if !text.is_empty() {
            output::data(&text)?;
        }
        Ok(taken)
    }

    /// Reads the names anew where an event is of an epoch that is newer than those known.
    fn learn(&mut self, event: &Event) -> Result<(), Failure> {
        let newest = self.known.front().map(|known| known.epoch);
        // Epochs count up; of a 32-bit number what is less than half the circle ahead is newer.
        let newer = |newest: u32| (event.epoch.wrapping_sub(newest) as i32) > 0;
        if newest.is_none_or(newer) {
            self.known.push_front(Known::read(self.global, self.args.from.as_deref())?);
            self.known.truncate(2);
        }
        Ok(())
    }

    /// Says what was lost since it was last said.
    fn losses(&mut self, told: &Told) -> Result<(), Failure> {
        let limited = told.limited.saturating_sub(self.counts.told.limited);
        let full = told.full.saturating_sub(self.counts.told.full);
        self.counts.told = *told;
        if limited + full == 0 {
            return Ok(());
        }
        if self.global.output == Form::Json {
            let line = json!({"event": "lost", "limited": limited, "full": full});
            return output::data(&format!("{line}\n"));
        }
        output::say(&format!("lost {}", lost(limited, full)));
        Ok(())
    }

    fn summary(&self, told: &Told) -> Result<(), Failure> {
        let counts = &self.counts;
        if self.global.output == Form::Json {
            let line = json!({
                "event": "end",
                "new": counts.new,
                "refused": counts.refused,
                "others": counts.others,
                "left_out": told.left_out,
                "limited": told.limited,
                "full": told.full,
            });
            output::data(&format!("{line}\n"))?;
        }
        output::say(&summary(counts, told));
        Ok(())
    }
}

fn lost(limited: u64, full: u64) -> String {
    let mut parts = Vec::new();
    if limited > 0 {
        parts.push(format!("{} to the limit (--rate)", count(limited as usize, "event")));
    }
    if full > 0 {
        parts.push(format!("{} because they were not read in time", count(full as usize, "event")));
    }
    parts.join(", ")
}

/// `3 events: 2 new flows, 1 refused packet; …`
fn summary(counts: &Counts, told: &Told) -> String {
    let mut text = format!(
        "{}: {}, {}",
        count(counts.printed(), "event"),
        count(counts.new, "new flow"),
        count(counts.refused, "refused packet")
    );
    if counts.others > 0 {
        text += &format!("; {} of others", count(counts.others, "event"));
    }
    if told.left_out > 0 {
        text += &format!("; {} left out by --sample", count(told.left_out as usize, "new flow"));
    }
    if told.limited + told.full > 0 {
        text += &format!("; lost {}", lost(told.limited, told.full));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_what_was_left_out_and_lost_only_where_there_is_any() {
        let counts = Counts { new: 2, refused: 1, ..Counts::default() };
        assert_eq!(summary(&counts, &Told::default()), "3 events: 2 new flows, 1 refused packet");
        let told = Told { told: 12, left_out: 40, limited: 1, full: 5 };
        assert_eq!(
            summary(&Counts { others: 9, ..counts }, &told),
            "3 events: 2 new flows, 1 refused packet; 9 events of others; 40 new flows left out \
             by --sample; lost 1 event to the limit (--rate), 5 events because they were not read \
             in time"
        );
    }
}
