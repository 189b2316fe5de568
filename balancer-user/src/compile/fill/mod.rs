//! The five ways to fill a table: which slot gets which target, when the number of slots of
//! each is settled.

pub mod maglev;
pub mod murmur;
pub mod ring;
pub mod smooth;

/// Puts the slots of each target side by side, in order: for picks by a random slot, where the
/// order does not matter, and for least request, which samples within a backend's run.
pub(super) fn grouped(counts: &[u32]) -> Vec<u16> {
    let mut slots = Vec::with_capacity(counts.iter().map(|&n| n as usize).sum());
    for (target, &n) in counts.iter().enumerate() {
        slots.resize(slots.len() + n as usize, target as u16);
    }
    slots
}

#[cfg(test)]
pub(super) fn counts_of(slots: &[u16], targets: usize) -> Vec<u32> {
    let mut counts = vec![0; targets];
    for &slot in slots {
        counts[usize::from(slot)] += 1;
    }
    counts
}
