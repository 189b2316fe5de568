//! How many new flows are let in: an allowance that is used up and comes back with time.
//!
//! Each jiffy gives back as many units as flows are allowed a second, and a flow takes as many
//! units as a second has jiffies. A second's worth may be used at once. A CPU has an allowance of
//! its own, and so has each VIP on it, of which a flow takes [`VIP_COST`] times as much.

/// How many times as much a flow takes of its VIP's allowance: one VIP alone gets half of what a
/// CPU lets in, so that a flood of it leaves the other half to the others.
pub const VIP_COST: u64 = 2;

/// What a flow takes of an allowance. `hz`: jiffies a second.
#[inline(always)]
pub const fn cost(hz: u32, times: u64) -> u64 {
    hz as u64 * times
}

/// What is still used up at `now` of what was at `at` (jiffies). `limit`: new flows a second. Where
/// the limit was lowered meanwhile, what was used before counts for a second at most.
#[inline(always)]
pub const fn used(before: u64, at: u32, now: u32, limit: u32, hz: u32) -> u64 {
    let all = limit as u64 * hz as u64;
    let before = if before < all { before } else { all };
    // Jiffies wrap; whoever was away for so long finds a little less given back than is due.
    before.saturating_sub(now.wrapping_sub(at) as u64 * limit as u64)
}

/// Whether a flow that costs so much may be let in. Of an allowance that is smaller than a flow, all
/// must be there.
#[inline(always)]
pub const fn has_room(used: u64, cost: u64, limit: u32, hz: u32) -> bool {
    let all = limit as u64 * hz as u64;
    used + cost <= if all > cost { all } else { cost }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 250;

    /// How many flows are let in at one moment by an allowance of which so much is used.
    fn at_once(mut taken: u64, limit: u32, times: u64) -> u32 {
        let mut flows = 0;
        while has_room(taken, cost(HZ, times), limit, HZ) {
            taken += cost(HZ, times);
            flows += 1;
        }
        flows
    }

    #[test]
    fn a_seconds_worth_may_be_used_at_once_and_a_vip_gets_half_of_it() {
        for limit in [2, 7, 100, 32_768] {
            assert_eq!(at_once(0, limit, 1), limit);
            assert_eq!(at_once(0, limit, VIP_COST), limit / 2);
        }
        assert_eq!(at_once(0, 1, VIP_COST), 1, "a limit of one lets one in");
        assert!(has_room(0, cost(1_000, VIP_COST), u32::MAX, 1_000));
    }

    #[test]
    fn what_is_used_comes_back_in_a_second() {
        let start = u32::MAX - 50; // jiffies wrap
        let all = cost(HZ, 1) * 100;
        let after = |jiffies| used(all, start, start.wrapping_add(jiffies), 100, HZ);
        assert_eq!(at_once(after(0), 100, 1), 0);
        assert_eq!(at_once(after(2), 100, 1), 0, "0.8 of a flow");
        assert_eq!(at_once(after(3), 100, 1), 1);
        assert_eq!(at_once(after(HZ / 2), 100, 1), 50);
        assert_eq!(at_once(after(HZ), 100, 1), 100);
        assert_eq!(at_once(after(100 * HZ), 100, 1), 100, "never more than a second's worth");
    }

    #[test]
    fn a_lowered_limit_holds_nobody_up_for_what_was_used_before() {
        let used_up = cost(HZ, 1) * 1_000_000;
        assert_eq!(at_once(used(used_up, 7, 7, 10, HZ), 10, 1), 0);
        assert_eq!(at_once(used(used_up, 7, 7 + HZ, 10, HZ), 10, 1), 10);
    }
}
