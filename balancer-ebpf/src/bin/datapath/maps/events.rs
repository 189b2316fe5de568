//! The maps of events: the ring buffer, what the tracer asks for, and what became of it.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated as helpers,
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
};
use balancer_ebpf::{
    abi::{EVENTS_BYTES, Event, Trace, Traced},
    hash,
    reason::Reason,
};

use super::MMAPABLE;
use crate::atomic;

/// Its elements have no type of their own: libbpf refuses a ring buffer whose values have one.
#[btf_map]
static EVENTS: RingBuf<(), EVENTS_BYTES> = RingBuf::new();
#[btf_map]
static TRACE: Array<Trace, 1, MMAPABLE> = Array::new();
#[btf_map]
static TRACED: PerCpuArray<Traced, 1> = PerCpuArray::new();

/// Whether somebody may be listening. All that a new flow pays for events when nobody is.
#[inline(always)]
pub(crate) fn traced() -> bool {
    // SAFETY: a live array element; a volatile aligned word is read whole.
    TRACE
        .get_ptr(0)
        .is_some_and(|trace| unsafe { (&raw const (*trace).until_ns).read_volatile() } != 0)
}

/// That an event may be told.
pub(crate) struct Leave {
    pub(crate) now_ns: u64,
    /// How many packets it stands for.
    pub(crate) sample: u32,
    counts: *mut Traced,
}

/// Asks for leave to tell of a packet, which counts as told then. `None`: nobody listens any
/// more, or not to this reason, or sampling leaves it out, or the limit is reached.
#[inline(always)]
pub(crate) fn leave(reason: Reason) -> Option<Leave> {
    let trace = TRACE.get_ptr_mut(0)?;
    // SAFETY: a live array element; each field is aligned and read whole.
    let (until_ns, reasons) = unsafe {
        (
            (&raw const (*trace).until_ns).read_volatile(),
            (&raw const (*trace).reasons).read_volatile(),
        )
    };
    if until_ns == 0 || reasons & reason.bit() == 0 {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { helpers::bpf_ktime_get_coarse_ns() };
    if now_ns >= until_ns {
        // The tracer was killed. Unless another one has come meanwhile, nobody listens.
        // SAFETY: a live aligned word of an array element; user space stores it whole.
        unsafe {
            atomic::compare_exchange_word((&raw mut (*trace).until_ns), until_ns, 0);
        }
        return None;
    }
    let counts = TRACED.get_ptr_mut(0)?;
    // SAFETY: as above.
    let asked = unsafe { (&raw const (*trace).sample).read_volatile() };
    let sample = if reason.begins_flow() && asked > 1 { asked } else { 1 };
    // SAFETY: this CPU's own element, here and below; the helper takes nothing.
    unsafe {
        if sample > 1 && hash::slot(helpers::bpf_get_prandom_u32(), sample) != 0 {
            (*counts).left_out += 1;
            return None;
        }
        let (interval_ns, ahead_ns) = (
            (&raw const (*trace).interval_ns).read_volatile(),
            (&raw const (*trace).ahead_ns).read_volatile(),
        );
        let used = (*counts).used_until_ns;
        let used = if used > now_ns { used } else { now_ns };
        if used - now_ns > ahead_ns {
            (*counts).limited += 1;
            return None;
        }
        (*counts).used_until_ns = used + interval_ns;
    }
    Some(Leave { now_ns, sample, counts })
}

/// Room for an event, which is in nobody's sight until it is submitted; counts what came of it.
#[inline(always)]
pub(crate) fn room(leave: &Leave) -> Option<RingBufEntry<Event>> {
    let room = EVENTS.reserve_untyped::<Event>(0);
    // SAFETY: this CPU's own element.
    unsafe {
        match room {
            Some(_) => (*leave.counts).told += 1,
            None => (*leave.counts).full += 1,
        }
    }
    room
}
