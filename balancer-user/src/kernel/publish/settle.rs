//! After the flip: reals that went or came back, ids and ports that nothing uses any more.

use std::{borrow::Cow, collections::BTreeSet, net::SocketAddr};

use balancer_ebpf::abi::{PortUse, Real, direction, real_flags};

use crate::compile::Tables;

use super::{
    super::{KernelError, View, read::real_address},
    Memory, PublishOptions, Written,
    plan::reals_of_previous,
};

/// What flow entries name.
#[derive(Default)]
struct InUse {
    reals: BTreeSet<u32>,
    vip_ports: BTreeSet<u16>,
    real_ports: BTreeSet<u16>,
}

impl InUse {
    /// Looks at every flow. A connection that moves from half-open to established meanwhile is
    /// seen: half-open ones are walked first, and it is entered there before it leaves here.
    fn sweep(view: &View) -> Result<Self, KernelError> {
        let mut used = Self::default();
        view.for_each_flow(|_, row| {
            used.reals.insert(row.flow.real);
            used.vip_ports.insert(row.vip.addr.port());
            if row.direction == direction::REPLY {
                used.real_ports.insert(row.src.port());
            }
        })?;
        Ok(used)
    }
}

/// Marks, frees, clears. `tables` are live and a grace period has passed.
pub(crate) fn settle(
    view: &View,
    memory: &mut Memory,
    tables: &Tables,
    options: &PublishOptions<'_>,
    now_ns: u64,
    written: &mut Written,
) -> Result<(), KernelError> {
    let inventory: Cow<'_, [SocketAddr]> = if tables.inventory.is_sorted() {
        Cow::Borrowed(&tables.inventory)
    } else {
        let mut sorted = tables.inventory.clone();
        sorted.sort_unstable();
        Cow::Owned(sorted)
    };
    let mut candidates = Vec::new();
    for &id in &memory.unnamed {
        let real: Real = view.reals.read(id as usize);
        let Some(addr) = real_address(&real) else { continue };
        let gone = real.flags & real_flags::GONE != 0;
        if inventory.binary_search(&addr).is_ok() {
            if gone {
                bring_back(view, id);
                written.reals += 1;
            }
        } else if !gone {
            mark_gone(view, id, now_ns);
            written.reals += 1;
        } else {
            let delay = options.gone_reset.map_or(0, |d| d.as_nanos());
            if u128::from(now_ns.saturating_sub(real.gone_at_ns)) >= delay {
                candidates.push(id);
            }
        }
    }
    if !candidates.is_empty() {
        let previous = reals_of_previous(view, memory)?;
        candidates.retain(|id| !previous.contains(id));
    }
    if !candidates.is_empty() || memory.ports.bits().lacks_some_of(&view.ports) {
        let used = InUse::sweep(view)?;
        for id in candidates.into_iter().filter(|id| !used.reals.contains(id)) {
            free(view, memory, id);
            written.reals += 1;
        }
        let mut ports = memory.ports.bits().clone();
        used.vip_ports.iter().for_each(|p| ports.add(*p, PortUse::Vip));
        used.real_ports.iter().for_each(|p| ports.add(*p, PortUse::Real));
        for id in &used.reals {
            if (*id as usize) < view.real_capacity()
                && let Some(addr) = real_address(&view.reals.read(*id as usize))
            {
                ports.add(addr.port(), PortUse::Real);
            }
        }
        written.port_words += ports.replace_in(&view.ports);
    }
    Ok(())
}

/// Words of [`Real`]: `flags` shares the third with port, family and mode; `gone_at_ns` is the
/// last.
const WORDS: usize = size_of::<Real>() / 8;
const FLAGS_WORD: usize = 2;

fn store_flags(view: &View, id: u32, real: &Real) {
    use zerocopy::IntoBytes as _;
    let mut word = [0; 8];
    word.copy_from_slice(&real.as_bytes()[FLAGS_WORD * 8..(FLAGS_WORD + 1) * 8]);
    view.reals.store_release(id as usize * WORDS + FLAGS_WORD, u64::from_ne_bytes(word));
}

/// The time first, then the flag: a program that sees the flag sees the time.
fn mark_gone(view: &View, id: u32, now_ns: u64) {
    let mut real: Real = view.reals.read(id as usize);
    real.gone_at_ns = now_ns;
    view.reals.store(id as usize * WORDS + WORDS - 1, now_ns);
    real.flags |= real_flags::GONE;
    store_flags(view, id, &real);
}

/// A real of the inventory again.
pub(crate) fn bring_back(view: &View, id: u32) {
    let mut real: Real = view.reals.read(id as usize);
    real.flags &= !real_flags::GONE;
    store_flags(view, id, &real);
    view.reals.store(id as usize * WORDS + WORDS - 1, 0);
}

/// Gives the id back; the generation stays, so that the next one is newer.
fn free(view: &View, memory: &mut Memory, id: u32) {
    let real: Real = view.reals.read(id as usize);
    if let Some(addr) = real_address(&real) {
        memory.assignment.reals.remove(&addr);
        memory.ports.remove(addr.port(), PortUse::Real);
    }
    memory.unnamed.remove(&id);
    memory.assignment.free_real_generations.insert(id, real.generation);
    view.reals.write(id as usize, &Real { generation: real.generation, ..Real::default() });
    view.active.store(id as usize, 0);
    memory.must_wait = true;
}
