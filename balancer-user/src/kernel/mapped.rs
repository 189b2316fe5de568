//! A mmapable array of the kernel, seen as words that programs and we share.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What may be done with the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Stays mapped when the map's descriptor is closed, and keeps the map alive.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<libc::c_void>,
    words: usize,
    access: Access,
}

// SAFETY: the memory is the kernel's and is reached through atomics only; the pointer itself
// is bound to no thread.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `words` words of a mmapable array.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize, access: Access) -> io::Result<Self> {
        let length = NonZeroUsize::new(words * 8)
            .ok_or_else(|| io::Error::other("an array without elements cannot be mapped"))?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { start, words, access })
    }

    /// The words. Stores are for [`Access::Write`] only.
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is the page-aligned beginning of a mapping of `words` words that lives
        // as long as `self`; other writers (the programs, we) write whole aligned words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.words) }
    }

    pub(crate) fn len(&self) -> usize {
        self.words
    }

    pub(crate) fn load(&self, word: usize) -> u64 {
        self.words()[word].load(Relaxed)
    }

    pub(crate) fn load_acquire(&self, word: usize) -> u64 {
        self.words()[word].load(Acquire)
    }

    /// Stores with release order: whoever sees the value sees all that was stored before.
    pub(crate) fn store_release(&self, word: usize, value: u64) {
        assert_eq!(self.access, Access::Write, "the mapping is read-only");
        self.words()[word].store(value, Release);
    }

    /// Takes `by` away, in one step among those of the programs. Wraps.
    pub(crate) fn subtract(&self, word: usize, by: u64) {
        assert_eq!(self.access, Access::Write, "the mapping is read-only");
        self.words()[word].fetch_sub(by, Relaxed);
    }

    /// Adds, in one step among those of other writers, with release order; what it was before. Wraps.
    pub(crate) fn add_release(&self, word: usize, by: u64) -> u64 {
        assert_eq!(self.access, Access::Write, "the mapping is read-only");
        self.words()[word].fetch_add(by, Release)
    }

    pub(crate) fn store(&self, word: usize, value: u64) {
        assert_eq!(self.access, Access::Write, "the mapping is read-only");
        self.words()[word].store(value, Relaxed);
    }

    /// The element `index` of an array of `T`, whose size is whole words.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, index: usize) -> T {
        let size = const { size_of::<T>() / 8 };
        let mut value = T::new_zeroed();
        for (at, bytes) in value.as_mut_bytes().chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&self.load(index * size + at).to_ne_bytes());
        }
        value
    }

    /// Makes element `index` equal to `value`; words that are equal are not written. Says
    /// whether any differed.
    pub(crate) fn write<T: IntoBytes + Immutable>(&self, index: usize, value: &T) -> bool {
        let size = const { size_of::<T>() / 8 };
        let mut differed = false;
        for (at, bytes) in value.as_bytes().chunks_exact(8).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            let (at, word) = (index * size + at, u64::from_ne_bytes(word));
            if self.load(at) != word {
                self.store(at, word);
                differed = true;
            }
        }
        differed
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length and is used no more.
        let unmapped = unsafe { munmap(self.start, self.words * 8) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
