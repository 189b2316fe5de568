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
    context::{Context, Refused, Skb, Xdp, straight, used},
    events,
    fib::Way,
    fragments,
    icmp::{self, Messages},
    ingress::{self, Known},
    maps::{Maps, RouteHead, Stage},
    open,
    outer::Outer,
    parse::Packet,
    record::{self, Candidate, Choice, Outcome},
    route, snat, stray,
};

/// The parts that look at no packet.
pub(crate) trait Choose: Maps + Outer {
    /// See [`record::choose`].
    fn choose(
        packet: &Packet<Self>,
        route: &RouteHead,
        slot: u32,
        candidate: &mut Candidate<Self>,
    ) -> Choice;
}

/// Recording, which looks at no packet either. Without `RECORD` no map changes.
pub(crate) trait Records<const RECORD: bool>: Choose {
    /// See [`record::record`].
    fn record(packet: &Packet<Self>, candidate: &Candidate<Self>, stage: Stage) -> Outcome;
}

/// The parts of both directions, for each kind of context.
pub(crate) trait Parts<C: Context>: Choose {
    /// Turns the packet into the reset that answers it.
    fn answer(ctx: C, packet: &Packet<Self>) -> Result<(), Refused>;
    /// See [`events::tell`].
    fn tell(ctx: C, packet: &Packet<Self>, reason: Reason);
}

/// The parts for packets that few are like: not whole, not TCP, or with another source.
pub(crate) trait Odd: Messages {
    /// See [`snat::onward`].
    fn onward(skb: Skb, packet: &Packet<Self>, reason: Reason) -> Result<i32, Refused>;
    /// See [`fragments::follow`].
    fn follow(skb: Skb, packet: &Packet<Self>, leaving: bool) -> bool;
    /// See [`fragments::later`].
    fn later(skb: Skb, at: u32, leaving: bool) -> Reason;
    /// See [`icmp::icmp`].
    fn icmp(skb: Skb, at: u32, leaving: bool, send: &mut u64) -> Reason;
}

/// The parts of the walk of a packet to a VIP, for each kind of context.
pub(crate) trait Steps<C: Context, const RECORD: bool>: Parts<C> + Records<RECORD> {
    /// See [`ingress::known`].
    fn known(ctx: C, packet: &Packet<Self>, open: *mut Self::Flow, reason: &mut Reason) -> Known;
    /// See [`open::open`].
    fn open(ctx: C, packet: &Packet<Self>, candidate: &mut Candidate<Self>) -> Reason;
    /// See [`stray::stray`].
    fn stray(ctx: C, packet: &Packet<Self>, candidate: &mut Candidate<Self>) -> Reason;
}

macro_rules! choose {
    ($family:ident: $choose:ident) => {
        impl Choose for $family {
            #[inline(always)]
            fn choose(
                packet: &Packet<Self>,
                route: &RouteHead,
                slot: u32,
                candidate: &mut Candidate<Self>,
            ) -> Choice {
                $choose(packet, route, slot, candidate)
            }
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
    };
}

/// See [`route::least_busy`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn least_busy(route: *const RouteHead) -> u32 {
    // SAFETY: null or a route; the verifier holds the callers to that.
    unsafe { route.as_ref() }.map_or(0, route::least_busy)
}

macro_rules! reach {
    ($family:ident, $addr:ty: $reach:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $reach(
            ctx: *mut __sk_buff,
            packet: *const Packet<$family>,
            to: *const $addr,
        ) -> Way {
            // SAFETY: null or what the types say; the verifier holds the callers to that.
            let (packet, to) = unsafe { (packet.as_ref(), to.as_ref()) };
            let (Some(packet), Some(to)) = (packet, to) else { return Way::None };
            straight::reach::<$family>(Skb::from_raw(ctx), &packet.place, to)
        }
    };
}

macro_rules! records {
    ($family:ident, $record:literal: $recorded:ident) => {
        impl Records<$record> for $family {
            #[inline(always)]
            fn record(packet: &Packet<Self>, candidate: &Candidate<Self>, stage: Stage) -> Outcome {
                $recorded(packet, candidate, stage)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $recorded(
            packet: *const Packet<$family>,
            candidate: *const Candidate<$family>,
            stage: Stage,
        ) -> Outcome {
            // SAFETY: null or what the types say; the verifier holds the callers to that.
            let (packet, candidate) = unsafe { (packet.as_ref(), candidate.as_ref()) };
            let (Some(packet), Some(candidate)) = (packet, candidate) else {
                return Outcome::Full;
            };
            record::record::<$family, $record>(packet, candidate, stage)
        }
    };
}

macro_rules! odd {
    ($family:ident: $onward:ident, $follow:ident, $later:ident, $icmp:ident) => {
        impl Odd for $family {
            #[inline(always)]
            fn onward(skb: Skb, packet: &Packet<Self>, reason: Reason) -> Result<i32, Refused> {
                match $onward(skb.into_raw(), packet, reason) {
                    Skb::DROP => Err(Refused),
                    verdict => Ok(verdict),
                }
            }
            #[inline(always)]
            fn follow(skb: Skb, packet: &Packet<Self>, leaving: bool) -> bool {
                $follow(skb.into_raw(), packet, leaving.into()) != 0
            }
            #[inline(always)]
            fn later(skb: Skb, at: u32, leaving: bool) -> Reason {
                $later(skb.into_raw(), at, leaving.into())
            }
            #[inline(always)]
            fn icmp(skb: Skb, at: u32, leaving: bool, send: &mut u64) -> Reason {
                $icmp(skb.into_raw(), at, leaving.into(), send)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $onward(
            ctx: *mut __sk_buff,
            packet: *const Packet<$family>,
            reason: Reason,
        ) -> i32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return Skb::DROP };
            snat::onward(Skb::from_raw(ctx), packet, reason).unwrap_or(Skb::DROP)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow(
            ctx: *mut __sk_buff,
            packet: *const Packet<$family>,
            leaving: u32,
        ) -> u32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return 0 };
            fragments::follow(Skb::from_raw(ctx), packet, leaving != 0).into()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $later(ctx: *mut __sk_buff, at: u32, leaving: u32) -> Reason {
            fragments::later::<Skb, $family>(Skb::from_raw(ctx), at, leaving != 0)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $icmp(ctx: *mut __sk_buff, at: u32, leaving: u32, send: *mut u64) -> Reason {
            // SAFETY: null or a number; the verifier holds the callers to that.
            let Some(send) = (unsafe { send.as_mut() }) else { return Reason::NotTcp };
            icmp::icmp::<$family>(Skb::from_raw(ctx), at, leaving != 0, send)
        }
    };
}

macro_rules! parts {
    ($context:ident, $family:ident: $answer:ident, $tell:ident) => {
        impl Parts<$context> for $family {
            #[inline(always)]
            fn answer(ctx: $context, packet: &Packet<Self>) -> Result<(), Refused> {
                if $answer(ctx.into_raw(), packet) == 0 { Ok(()) } else { Err(Refused) }
            }
            #[inline(always)]
            fn tell(ctx: $context, packet: &Packet<Self>, reason: Reason) {
                $tell(ctx.into_raw(), packet, reason);
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $answer(
            ctx: *mut <$context as Context>::Raw,
            packet: *const Packet<$family>,
        ) -> i32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return 1 };
            let ctx = $context::from_raw(ctx);
            i32::from(ctx.answer_with_reset::<$family>(&packet.place, packet.end).is_err())
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(
            ctx: *mut <$context as Context>::Raw,
            packet: *const Packet<$family>,
            reason: Reason,
        ) -> i32 {
            // SAFETY: null or a whole packet; the verifier holds the callers to that.
            let Some(packet) = (unsafe { packet.as_ref() }) else { return 1 };
            events::tell($context::from_raw(ctx), packet, reason);
            0
        }
    };
}

macro_rules! steps {
    ($context:ident, $family:ident, $flow:ident, $record:literal:
     $known:ident, $open:ident, $stray:ident) => {
        impl Steps<$context, $record> for $family {
            #[inline(always)]
            fn known(
                ctx: $context,
                packet: &Packet<Self>,
                open: *mut $flow,
                reason: &mut Reason,
            ) -> Known {
                $known(ctx.into_raw(), packet, open, reason)
            }
            #[inline(always)]
            fn open(
                ctx: $context,
                packet: &Packet<Self>,
                candidate: &mut Candidate<Self>,
            ) -> Reason {
                $open(ctx.into_raw(), packet, candidate)
            }
            #[inline(always)]
            fn stray(
                ctx: $context,
                packet: &Packet<Self>,
                candidate: &mut Candidate<Self>,
            ) -> Reason {
                $stray(ctx.into_raw(), packet, candidate)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $known(
            ctx: *mut <$context as Context>::Raw,
            packet: *const Packet<$family>,
            open: *mut $flow,
            reason: *mut Reason,
        ) -> Known {
            // SAFETY: null or what the types say; the verifier holds the callers to that.
            let (packet, reason) = unsafe { (packet.as_ref(), reason.as_mut()) };
            let (Some(packet), Some(reason)) = (packet, reason) else { return Known::Ends };
            let ctx = $context::from_raw(ctx);
            ingress::known::<$context, $family, $record>(ctx, packet, open, reason)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $open(
            ctx: *mut <$context as Context>::Raw,
            packet: *const Packet<$family>,
            candidate: *mut Candidate<$family>,
        ) -> Reason {
            // SAFETY: as above.
            let (packet, candidate) = unsafe { (packet.as_ref(), candidate.as_mut()) };
            let (Some(packet), Some(candidate)) = (packet, candidate) else {
                return Reason::Malformed;
            };
            let ctx = $context::from_raw(used(ctx));
            open::open::<$context, $family, $record>(ctx, packet, candidate)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $stray(
            ctx: *mut <$context as Context>::Raw,
            packet: *const Packet<$family>,
            candidate: *mut Candidate<$family>,
        ) -> Reason {
            // SAFETY: as above.
            let (packet, candidate) = unsafe { (packet.as_ref(), candidate.as_mut()) };
            let (Some(packet), Some(candidate)) = (packet, candidate) else {
                return Reason::Malformed;
            };
            let ctx = $context::from_raw(used(ctx));
            stray::stray::<$context, $family, $record>(ctx, packet, candidate)
        }
    };
}

reach!(V4, [u8; 4]: reach4);
reach!(V6, [u8; 16]: reach6);
choose!(V4: choose4);
choose!(V6: choose6);
records!(V4, true: record4);
records!(V6, true: record6);
records!(V4, false: record4_ask);
records!(V6, false: record6_ask);
parts!(Skb, V4: answer4, tell4);
parts!(Skb, V6: answer6, tell6);
steps!(Skb, V4, Flow4, true: known4, open4, stray4);
steps!(Skb, V6, Flow6, true: known6, open6, stray6);
steps!(Skb, V4, Flow4, false: known4_ask, open4_ask, stray4_ask);
steps!(Skb, V6, Flow6, false: known6_ask, open6_ask, stray6_ask);
parts!(Xdp, V4: answer4_xdp, tell4_xdp);
parts!(Xdp, V6: answer6_xdp, tell6_xdp);
steps!(Xdp, V4, Flow4, true: known4_xdp, open4_xdp, stray4_xdp);
steps!(Xdp, V6, Flow6, true: known6_xdp, open6_xdp, stray6_xdp);
odd!(V4: snat4, follow4, later4, icmp4);
odd!(V6: snat6, follow6, later6, icmp6);
