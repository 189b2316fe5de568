//! What a program works with where its stack has no room.

use core::mem::MaybeUninit;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

use crate::cleared::cleared;

/// What an element is used for: nobody uses one for something else meanwhile.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Use {
    /// The real that a new flow could go to, from the choice to the packet that is sent there.
    Candidate,
    /// The value of a flow entry until it is inserted.
    Flow,
    /// The key of a reply entry.
    ReplyKey,
}

/// Room for the largest of them.
type Room = [u64; 8];

#[btf_map]
static SCRATCH: PerCpuArray<Room, 3> = PerCpuArray::new();

/// This CPU's own, all zeros. It is this program's until it ends or asks for it again: programs that
/// record something run with bottom halves off, so none interrupts another one on its CPU.
///
/// # Safety
/// All bytes of a `T` may be zero.
#[inline(always)]
pub(crate) unsafe fn scratch<'a, T>(used: Use) -> Option<&'a mut T> {
    const { assert!(size_of::<T>() <= size_of::<Room>() && align_of::<T>() <= align_of::<Room>()) };
    let room = SCRATCH.get_ptr_mut(used as u32)?;
    // SAFETY: a live element that is large enough and aligned, which nobody else uses now.
    let room = unsafe { &mut *room.cast::<MaybeUninit<T>>() };
    // SAFETY: as the caller states.
    Some(unsafe { cleared(room) })
}
