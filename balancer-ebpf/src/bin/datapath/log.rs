//! What the debug object tells (feature `log`, aya-log): flows that begin, with tuple and real,
//! and packets that are refused, with the reason.
//!
//! Everything is told at one place, after the walk: there the stack is shallow, and the walk is
//! that of the release object. Without the feature nothing of this is compiled.

#[cfg(feature = "log")]
pub(crate) use lines::told;
#[cfg(not(feature = "log"))]
pub(crate) use silence::told;

#[cfg(not(feature = "log"))]
mod silence {
    use balancer_ebpf::reason::Reason;

    use crate::{maps::Maps, parse::Packet};

    /// Nothing; returns the reason.
    #[inline(always)]
    pub(crate) fn told<F: Maps>(_packet: &Packet<F>, reason: Reason) -> Reason {
        reason
    }
}

#[cfg(feature = "log")]
mod lines {
    use aya_log_ebpf::{info, warn};
    use balancer_ebpf::{
        flow::{End, Family},
        reason::{Fate, Reason},
    };

    use crate::{
        maps::{self, Maps, Stage},
        parse::Packet,
    };

    /// Bytes of the longest name.
    const LONGEST: usize = {
        let mut longest = 0;
        let mut i = 0;
        while i < Reason::ALL.len() {
            let len = Reason::ALL[i].name().len();
            if len > longest {
                longest = len;
            }
            i += 1;
        }
        longest
    };

    /// Room for all reasons; a power of two, see [`name`].
    const REASONS: usize = 64;
    const _: () = assert!(Reason::ALL.len() <= REASONS);

    /// The reasons' names, filled up with blanks: a line is written piece by piece, and the
    /// verifier wants to know the length of each.
    static NAMES: [[u8; LONGEST]; REASONS] = {
        let mut names = [[b' '; LONGEST]; REASONS];
        let mut i = 0;
        while i < Reason::ALL.len() {
            let name = Reason::ALL[i].name().as_bytes();
            let mut at = 0;
            while at < name.len() {
                names[i][at] = name[at];
                at += 1;
            }
            i += 1;
        }
        names
    };

    /// Tells of the packet if its fate is worth a line; returns the reason.
    #[inline(always)]
    pub(crate) fn told<F: Maps>(packet: &Packet<F>, reason: Reason) -> Reason {
        match reason {
            Reason::NewFlow | Reason::TupleClash | Reason::FlowAdopted => begun(packet, reason),
            _ => match reason.fate() {
                Fate::Drop | Fate::Reset => refused(packet, reason),
                Fate::Pass | Fate::Forward | Fate::Answer => {}
            },
        }
        reason
    }

    #[inline(always)]
    fn name(reason: Reason) -> &'static str {
        // The compiler knows that a reason is less, and would leave the mask out; the verifier
        // does not know it.
        let index = core::hint::black_box(reason as usize) & (REASONS - 1);
        // SAFETY: names are ASCII.
        unsafe { core::str::from_utf8_unchecked(&NAMES[index]) }
    }

    /// An IPv4 address.
    #[inline(always)]
    fn four<F: Family>(addr: &F::Addr) -> [u8; 4] {
        F::words(addr)[0]
    }

    /// An IPv6 address.
    #[inline(always)]
    fn sixteen<F: Family>(addr: &F::Addr) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (i, word) in F::words(addr).iter().enumerate().take(4) {
            bytes[4 * i..4 * i + 4].copy_from_slice(word);
        }
        bytes
    }

    #[inline(always)]
    fn port<A>(end: &End<A>) -> u16 {
        u16::from_be_bytes(end.port)
    }

    #[inline(never)]
    fn begun<F: Maps>(packet: &Packet<F>, reason: Reason) {
        let (client, vip) = (F::src(&packet.key), F::dst(&packet.key));
        let entry = match F::find(Stage::HalfOpen, &packet.key) {
            Some(entry) => Some(entry),
            None => F::find(Stage::Open, &packet.key),
        };
        let Some(entry) = entry else { return };
        let id = entry.state_copy().real;
        let Some(real) = maps::real(id) else { return };
        let real = real.end::<F>();
        if F::NUMBER == 4 {
            info!(
                (),
                "{} {:i}:{} -> {:i}:{} at {:i}:{} (real {})",
                name(reason),
                four::<F>(&client.addr),
                port(&client),
                four::<F>(&vip.addr),
                port(&vip),
                four::<F>(&real.addr),
                port(&real),
                id
            );
        } else {
            info!(
                (),
                "{} [{:i}]:{} -> [{:i}]:{} at [{:i}]:{} (real {})",
                name(reason),
                sixteen::<F>(&client.addr),
                port(&client),
                sixteen::<F>(&vip.addr),
                port(&vip),
                sixteen::<F>(&real.addr),
                port(&real),
                id
            );
        }
    }

    #[inline(never)]
    fn refused<F: Maps>(packet: &Packet<F>, reason: Reason) {
        let (src, dst) = (F::src(&packet.key), F::dst(&packet.key));
        if F::NUMBER == 4 {
            warn!(
                (),
                "{} {:i}:{} -> {:i}:{}",
                name(reason),
                four::<F>(&src.addr),
                port(&src),
                four::<F>(&dst.addr),
                port(&dst)
            );
        } else {
            warn!(
                (),
                "{} [{:i}]:{} -> [{:i}]:{}",
                name(reason),
                sixteen::<F>(&src.addr),
                port(&src),
                sixteen::<F>(&dst.addr),
                port(&dst)
            );
        }
    }
}
