//! Functions that the verifier judges by themselves.
//!
//! It follows a local function anew at every call, with what it knows of the arguments there. A
//! global function it follows once, with nothing known of them, and a call costs it one
//! instruction. So the large parts of the walk are global: their names and arguments are in the
//! object's BTF. A pointer to memory may be null as far as the verifier knows, must be asked, and
//! what it points to has no unset byte.

use aya_ebpf::bindings::__sk_buff;
use balancer_ebpf::{
    abi::{Flow4, Flow6},
    flow::{V4, V6},
    reason::Reason,
};

use crate::{
    context::{Refused, Skb, Translate},
    events,
    ingress::{self, Known},
    maps::{Maps, RouteHead, Stage},
    parse::Packet,
    record::{self, Candidate, Choice, Outcome},
    route,
};

/// The parts of both directions.
pub(crate) trait Parts: Maps + Translate {
    /// Turns the packet into the reset that answers it.
    fn answer(skb: Skb, packet: &Packet<Self>) -> Result<(), Refused>;
    /// See [`record::choose`].
    fn choose(
        packet: &Packet<Self>,
        route: &RouteHead,
        slot: u32,
        candidate: &mut Candidate<Self>,
    ) -> Choice;
    /// See [`events::tell`].
    fn tell(skb: Skb, packet: &Packet<Self>, reason: Reason);
}

/// The parts of the walk of a packet to a VIP. Without `RECORD` no map changes.
pub(crate) trait Steps<const RECORD: bool>: Parts {
    /// See [`ingress::known`].
    fn known(skb: Skb, packet: &Packet<Self>, open: *mut Self::Flow, reason: &mut Reason) -> Known;
    /// See [`ingress::open`].
    fn open(skb: Skb, packet: &Packet<Self>) -> Reason;
    /// See [`ingress::stray`].
    fn stray(skb: Skb, packet: &Packet<Self>) -> Reason;
    /// See [`record::record`].
    fn record(packet: &Packet<Self>, candidate: &Candidate<Self>, stage: Stage) -> Outcome;
}

macro_rules! parts {
    ($family:ident: $answer:ident, $choose:ident, $tell:ident) => {
        impl Parts for $family {
            #[inline(always)]
            fn answer(skb: Skb, packet: &Packet<Self>) -> Result<(), Refused> {
                if $answer(skb.into_raw(), packet) == 0 { Ok(()) } else { Err(Refused) }
            }
            #[inline(always)]
            fn choose(
                packet: &Packet<Self>,
                route: &RouteHead,
                slot: u32,
                candidate: &mut Candidate<Self>,
            ) -> Choice {
                $choose(packet, route, slot, candidate)
            }
            #[inline(always)]
            fn tell(skb: Skb, packet: &Packet<Self>, reason: Reason) {
                $tell(skb.into_raw(), packet, reason);
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $answer(ctx: *mut __sk_buff, packet: *const Packet<$family>) -> i32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return 1 };
            let answered =
                Skb::from_raw(ctx).answer_with_reset::<$family>(&packet.place, packet.end);
            i32::from(answered.is_err())
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $choose(
            packet: *const Packet<$family>,
            route: *const RouteHead,
            slot: u32,
            candidate: *mut Candidate<$family>,
        ) -> Choice {
            // SAFETY: null or what the types say; the verifier holds the callers to that.
            let (packet, route) = unsafe { (packet.as_ref(), route.as_ref()) };
            // SAFETY: as above.
            let candidate = unsafe { candidate.as_mut() };
            let (Some(packet), Some(route), Some(candidate)) = (packet, route, candidate) else {
                return Choice::Empty;
            };
            record::choose(packet, route, slot, candidate)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(
            ctx: *mut __sk_buff,
            packet: *const Packet<$family>,
            reason: Reason,
        ) -> i32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return 1 };
            events::tell::<$family>(Skb::from_raw(ctx), packet, reason);
            0
        }
    };
}

/// See [`route::least_busy`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn least_busy(route: *const RouteHead) -> u32 {
    // SAFETY: null or a route; the verifier holds the callers to that.
    unsafe { route.as_ref() }.map_or(0, route::least_busy)
}

macro_rules! steps {
    ($family:ident, $flow:ident, $record:literal:
     $known:ident, $open:ident, $stray:ident, $recorded:ident) => {
        impl Steps<$record> for $family {
            #[inline(always)]
            fn known(
                skb: Skb,
                packet: &Packet<Self>,
                open: *mut $flow,
                reason: &mut Reason,
            ) -> Known {
                $known(skb.into_raw(), packet, open, reason)
            }
            #[inline(always)]
            fn open(skb: Skb, packet: &Packet<Self>) -> Reason {
                $open(skb.into_raw(), packet)
            }
            #[inline(always)]
            fn stray(skb: Skb, packet: &Packet<Self>) -> Reason {
                $stray(skb.into_raw(), packet)
            }
            #[inline(always)]
            fn record(packet: &Packet<Self>, candidate: &Candidate<Self>, stage: Stage) -> Outcome {
                $recorded(packet, candidate, stage)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $known(
            ctx: *mut __sk_buff,
            packet: *const Packet<$family>,
            open: *mut $flow,
            reason: *mut Reason,
        ) -> Known {
            // SAFETY: null or what the types say; the verifier holds the callers to that.
            let (packet, reason) = unsafe { (packet.as_ref(), reason.as_mut()) };
            let (Some(packet), Some(reason)) = (packet, reason) else { return Known::Ends };
            ingress::known::<$family, $record>(Skb::from_raw(ctx), packet, open, reason)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $open(ctx: *mut __sk_buff, packet: *const Packet<$family>) -> Reason {
            // SAFETY: as above.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return Reason::Malformed };
            ingress::open::<$family, $record>(Skb::from_raw(ctx), packet)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $stray(ctx: *mut __sk_buff, packet: *const Packet<$family>) -> Reason {
            // SAFETY: as above.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return Reason::Malformed };
            ingress::stray::<$family, $record>(Skb::from_raw(ctx), packet)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $recorded(
            packet: *const Packet<$family>,
            candidate: *const Candidate<$family>,
            stage: Stage,
        ) -> Outcome {
            // SAFETY: as above.
            let (packet, candidate) = unsafe { (packet.as_ref(), candidate.as_ref()) };
            let (Some(packet), Some(candidate)) = (packet, candidate) else {
                return Outcome::Full;
            };
            record::record::<$family, $record>(packet, candidate, stage)
        }
    };
}

parts!(V4: answer4, choose4, tell4);
parts!(V6: answer6, choose6, tell6);
steps!(V4, Flow4, true: known4, open4, stray4, record4);
steps!(V6, Flow6, true: known6, open6, stray6, record6);
steps!(V4, Flow4, false: known4_ask, open4_ask, stray4_ask, record4_ask);
steps!(V6, Flow6, false: known6_ask, open6_ask, stray6_ask, record6_ask);
