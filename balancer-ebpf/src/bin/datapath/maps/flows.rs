//! The maps that differ between the families: flows and dictionaries.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use balancer_ebpf::{
    abi::{Flow4, Flow6, FlowState},
    flow::{Family, V4, V6},
    tcp_state,
};

use super::{
    FLOWS4, FLOWS6, HALF_OPEN4, HALF_OPEN6, SOURCE_IDS4, SOURCE_IDS6, VIP_ADDRESSES4,
    VIP_ADDRESSES6, VIP_IDS4, VIP_IDS6, active_down,
};
use crate::{atomic, parse::Packet};

/// A map insertion that did not happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotInserted {
    /// The key is there already.
    Exists,
    /// No room.
    Full,
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Result<(), NotInserted> {
    const EEXIST: i32 = 17;
    match result {
        Ok(()) => Ok(()),
        Err(error) if error == -EEXIST => Err(NotInserted::Exists),
        Err(_) => Err(NotInserted::Full),
    }
}

/// Which map of flows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    /// Handshake complete.
    Open,
    /// Not yet.
    HalfOpen,
}

/// The maps of one family.
pub(crate) trait Maps: Family {
    /// The id of a VIP.
    fn vip_id(vip: &Self::VipKey) -> Option<u32>;
    /// The id of a source.
    fn source_id(addr: &Self::Addr) -> Option<u32>;
    /// Whether some VIP has this address.
    fn is_vip_address(addr: &Self::Addr) -> bool;
    /// A packet's key, copied to the stack. On 6.1 no map takes a key from memory that a
    /// function was given: a function that the verifier judges by itself copies it first.
    fn own_key(packet: &Packet<Self>) -> Self::Key;
    /// Finds a flow.
    fn find(stage: Stage, key: &Self::Key) -> Option<Entry<Self>>;
    /// Records a flow where there is none.
    fn insert(stage: Stage, key: &Self::Key, flow: &Self::Flow) -> Result<(), NotInserted>;
    /// Forgets a flow, if it is there.
    fn remove(stage: Stage, key: &Self::Key);
}

macro_rules! maps {
    ($family:ident, $vips:ident, $addresses:ident, $sources:ident, $flows:ident,
     $half_open:ident) => {
        impl Maps for $family {
            #[inline(always)]
            fn vip_id(vip: &Self::VipKey) -> Option<u32> {
                // SAFETY: a live element, written once and before its key could be found.
                $vips.get_ptr(vip).map(|id| unsafe { *id })
            }
            #[inline(always)]
            fn source_id(addr: &Self::Addr) -> Option<u32> {
                // SAFETY: as above.
                $sources.get_ptr(addr).map(|id| unsafe { *id })
            }
            #[inline(always)]
            fn is_vip_address(addr: &Self::Addr) -> bool {
                $addresses.get_ptr(addr).is_some()
            }
            #[inline(always)]
            fn own_key(packet: &Packet<Self>) -> Self::Key {
                let mut words = [0u32; size_of::<<Self as Family>::Key>() / 4];
                let mut i = 0;
                while i < words.len() {
                    // SAFETY: inside the packet's first field, which has the packet's alignment.
                    // Volatile, lest LLVM hands the original to the map after all.
                    words[i] = unsafe { (&raw const *packet).cast::<u32>().add(i).read_volatile() };
                    i += 1;
                }
                zerocopy::transmute!(words)
            }
            #[inline(always)]
            fn find(stage: Stage, key: &Self::Key) -> Option<Entry<Self>> {
                match stage {
                    Stage::Open => $flows.get_ptr_mut(key).and_then(Entry::from_raw),
                    Stage::HalfOpen => $half_open.get_ptr_mut(key).and_then(Entry::from_raw),
                }
            }
            #[inline(always)]
            fn insert(stage: Stage, key: &Self::Key, flow: &Self::Flow) -> Result<(), NotInserted> {
                inserted(match stage {
                    Stage::Open => $flows.insert(key, flow, BPF_NOEXIST.into()),
                    Stage::HalfOpen => $half_open.insert(key, flow, BPF_NOEXIST.into()),
                })
            }
            #[inline(always)]
            fn remove(stage: Stage, key: &Self::Key) {
                // Nothing to do about an error: the only one is that the key is not there.
                let _absent = match stage {
                    Stage::Open => $flows.remove(key),
                    Stage::HalfOpen => $half_open.remove(key),
                };
            }
        }
    };
}

maps!(V4, VIP_IDS4, VIP_ADDRESSES4, SOURCE_IDS4, FLOWS4, HALF_OPEN4);
maps!(V6, VIP_IDS6, VIP_ADDRESSES6, SOURCE_IDS6, FLOWS6, HALF_OPEN6);

/// A flow, where it lies.
pub(crate) struct Entry<F: Family>(NonNull<F::Flow>);

impl<F: Family> Clone for Entry<F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<F: Family> Copy for Entry<F> {}

impl<F: Family> Entry<F> {
    /// For functions that are not inlined: the pointer, or null.
    #[inline(always)]
    pub(crate) fn into_raw(entry: Option<Self>) -> *mut F::Flow {
        entry.map_or(core::ptr::null_mut(), |entry| entry.0.as_ptr())
    }

    /// The reverse of [`Self::into_raw`].
    #[inline(always)]
    pub(crate) fn from_raw(flow: *mut F::Flow) -> Option<Self> {
        NonNull::new(flow).map(Self)
    }

    /// To look at single fields, each as it is at that moment.
    #[inline(always)]
    pub(crate) fn view<'a>(self) -> &'a F::Flow {
        // SAFETY: a live element until the program ends; any bytes are a valid value.
        unsafe { self.0.as_ref() }
    }

    /// What does not depend on the family.
    #[inline(always)]
    pub(crate) fn state_copy(self) -> FlowState {
        // SAFETY: a live element, which begins with these fields; any bytes are valid.
        unsafe { *self.state() }
    }

    /// What both families' values begin with.
    #[inline(always)]
    fn state(self) -> *mut FlowState {
        self.0.as_ptr().cast()
    }

    /// Where the flow remembers its next hop.
    #[inline(always)]
    pub(crate) fn hop(self) -> *mut u32 {
        const { assert!(size_of::<F::Flow>().is_multiple_of(4)) };
        // SAFETY: a live element, which ends with that word.
        unsafe { self.0.as_ptr().cast::<u32>().add(size_of::<F::Flow>() / 4 - 1) }
    }

    #[inline(always)]
    pub(crate) fn seen(self, now: u32) {
        // SAFETY: a live element; an aligned word is written whole.
        unsafe { (&raw mut (*self.state()).last_seen).write_volatile(now) }
    }

    #[inline(always)]
    pub(crate) fn refreshed(self, now: u32) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.state()).refreshed).write_volatile(now) }
    }

    /// Sets and clears bits of the state, atomically; what the state was before and is now.
    /// `None`: another CPU keeps changing it.
    #[inline(always)]
    pub(crate) fn change(self, set: u8, clear: u8) -> Option<(u8, u8)> {
        const TRIES: u32 = 4;
        // The word of `state`, `forwarding` and `client_port`.
        // SAFETY: a live element; the field lies inside it.
        let word = unsafe { (&raw mut (*self.state()).state).cast::<u32>() };
        let mut tries = 0;
        while tries < TRIES {
            // SAFETY: a live element, aligned to 4 bytes as is the field's offset.
            let found = unsafe { word.read_volatile() };
            let mut bytes = found.to_ne_bytes();
            let before = bytes[0];
            bytes[0] = (before | set) & !clear;
            if bytes[0] == before {
                return Some((before, before));
            }
            // SAFETY: as above; programs change this word in no other way.
            if unsafe { atomic::compare_exchange(word, found, u32::from_ne_bytes(bytes)) } == found
            {
                return Some((before, bytes[0]));
            }
            tries += 1;
        }
        None
    }

    /// Adds to the connection's state; when that ends the connection, its real has one less.
    /// Exactly one CPU sees the change.
    #[inline(always)]
    pub(crate) fn mark(self, set: u8, real: u32, now: u32) {
        if let Some((before, after)) = self.change(set, 0)
            && tcp_state::ends(before, after)
        {
            active_down(real);
        }
        self.seen(now);
    }
}

const _: () = {
    // `Entry::change` takes these four bytes for one aligned word.
    assert!(core::mem::offset_of!(FlowState, state) % 4 == 0);
    assert!(
        core::mem::offset_of!(FlowState, client_port)
            == core::mem::offset_of!(FlowState, state) + 2
    );
    assert!(core::mem::offset_of!(Flow4, flow) == 0 && core::mem::offset_of!(Flow6, flow) == 0);
};

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Flow4, hop) == size_of::<Flow4>() - 4);
    assert!(offset_of!(Flow6, hop) == size_of::<Flow6>() - 4);
};
