//! Read-modify-write on map values. `core` has none for this target, and LLVM turns a relaxed
//! addition whose result is used into one that does not return it; so, inline assembly. Each is
//! a full barrier.

#[cfg(target_arch = "bpf")]
mod imp {
    use core::arch::asm;

    /// Adds `v` and returns what was there.
    ///
    /// # Safety
    /// `p` points to an aligned live value that is only changed by atomic operations.
    #[inline(always)]
    pub(crate) unsafe fn fetch_add(p: *mut u64, mut v: u64) -> u64 {
        // SAFETY: as the caller states; the instruction touches nothing else.
        unsafe {
            asm!("{v} = atomic_fetch_add((u64 *)({p} + 0), {v})", v = inout(reg) v, p = in(reg) p);
        }
        v
    }

    /// Sets bits and returns what was there.
    ///
    /// # Safety
    /// As [`fetch_add`].
    #[inline(always)]
    pub(crate) unsafe fn fetch_or(p: *mut u64, mut v: u64) -> u64 {
        // SAFETY: as the caller states; the instruction touches nothing else.
        unsafe {
            asm!("{v} = atomic_fetch_or((u64 *)({p} + 0), {v})", v = inout(reg) v, p = in(reg) p);
        }
        v
    }

    /// Stores `new` if `old` is there; returns what was found.
    ///
    /// # Safety
    /// As [`fetch_add`].
    #[inline(always)]
    pub(crate) unsafe fn compare_exchange(p: *mut u32, old: u32, new: u32) -> u32 {
        let mut found = u64::from(old);
        // SAFETY: as the caller states; the instruction touches nothing else.
        unsafe {
            asm!(
                "w0 = cmpxchg32_32({p} + 0, w0, w1)",
                inout("r0") found, p = in(reg) p, in("r1") u64::from(new),
            );
        }
        found as u32
    }

    /// [`compare_exchange`] of a whole word.
    ///
    /// # Safety
    /// As [`fetch_add`].
    #[inline(always)]
    pub(crate) unsafe fn compare_exchange_word(p: *mut u64, old: u64, new: u64) -> u64 {
        let mut found = old;
        // SAFETY: as the caller states.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({p} + 0, r0, r1)",
                inout("r0") found, p = in(reg) p, in("r1") new,
            );
        }
        found
    }
}

/// For lints, which see this crate on the host.
#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

    /// # Safety
    /// As `AtomicU64::from_ptr`.
    pub(crate) unsafe fn fetch_add(p: *mut u64, v: u64) -> u64 {
        // SAFETY: as the caller states.
        unsafe { AtomicU64::from_ptr(p) }.fetch_add(v, SeqCst)
    }

    /// # Safety
    /// As `AtomicU64::from_ptr`.
    pub(crate) unsafe fn fetch_or(p: *mut u64, v: u64) -> u64 {
        // SAFETY: as the caller states.
        unsafe { AtomicU64::from_ptr(p) }.fetch_or(v, SeqCst)
    }

    /// # Safety
    /// As `AtomicU32::from_ptr`.
    pub(crate) unsafe fn compare_exchange(p: *mut u32, old: u32, new: u32) -> u32 {
        // SAFETY: as the caller states.
        let p = unsafe { AtomicU32::from_ptr(p) };
        p.compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|found| found)
    }

    /// # Safety
    /// As `AtomicU64::from_ptr`.
    pub(crate) unsafe fn compare_exchange_word(p: *mut u64, old: u64, new: u64) -> u64 {
        // SAFETY: as the caller states.
        let p = unsafe { AtomicU64::from_ptr(p) };
        p.compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|found| found)
    }
}

pub(crate) use imp::{compare_exchange, compare_exchange_word, fetch_add, fetch_or};
