//! Values of zeros on the stack.

use core::mem::MaybeUninit;

/// Writes zeros, word by word. LLVM would call its own `memset`, which goes byte by byte.
///
/// # Safety
/// All bytes of a `T` may be zero.
#[inline(always)]
pub(crate) unsafe fn cleared<T>(value: &mut MaybeUninit<T>) -> &mut T {
    const { assert!(align_of::<T>() >= 4 && size_of::<T>().is_multiple_of(4)) };
    let words: *mut u32 = value.as_mut_ptr().cast();
    let mut i = 0;
    while i < size_of::<T>() / 4 {
        // SAFETY: inside the value, which is aligned to words. Volatile, so that they stay words.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
    // SAFETY: all of it is written, and a value, as the caller states.
    unsafe { value.assume_init_mut() }
}
