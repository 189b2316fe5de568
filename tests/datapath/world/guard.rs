//! The guard against floods, as a test sets it and looks at it.

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use balancer_ebpf::{
    abi::{NewFlows, Settings, map_names},
    reason::Reason,
};
use harness::Segment;

use super::{Hook, World, array, fresh_port, value};

type Allowances<'a> = PerCpuArray<&'a mut MapData, [u8; size_of::<NewFlows>()]>;

/// Keeps this thread, which is the test's own, on one CPU: what counts by CPU is then in one place.
/// The CPU's number.
pub(crate) fn pin_to_one_cpu() -> usize {
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(this).expect("readable");
    let cpu = (0..nix::sched::CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .expect("some CPU");
    let mut one = nix::sched::CpuSet::new();
    one.set(cpu).expect("in range");
    nix::sched::sched_setaffinity(this, &one).expect("allowed");
    cpu
}

impl World {
    /// Sets how many new flows each CPU may record a second; 0: any number.
    pub(crate) fn limit_new_flows(&mut self, limit: u32) {
        self.change_settings(|settings| settings.new_flows = limit);
    }

    /// Changes what the programs are told.
    pub(crate) fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut map = self.array::<{ size_of::<Settings>() }>(map_names::SETTINGS);
        let mut settings: Settings = value(&map.get(&0, 0).expect("SETTINGS"));
        change(&mut settings);
        map.set(0, array(&settings), 0).expect("SETTINGS");
    }

    fn allowances(&mut self) -> Allowances<'_> {
        let map = self.loaded_mut().ebpf.map_mut(map_names::NEW_FLOWS).expect("NEW_FLOWS");
        map.try_into().expect("a per-CPU array of this size")
    }

    /// What a CPU remembers of a VIP's new flows; 0: of all.
    pub(crate) fn new_flows(&mut self, cpu: usize, vip: u32) -> NewFlows {
        let values = self.allowances().get(&vip, 0).expect("an element for each VIP");
        value(&values[cpu])
    }

    /// Makes what was let in for these VIPs look older, on all CPUs.
    pub(crate) fn age_new_flows(&mut self, vips: &[u32], jiffies: u32) {
        let mut map = self.allowances();
        for vip in vips {
            let values = map.get(vip, 0).expect("an element for each VIP");
            let older = values.iter().map(|bytes| {
                let mut found: NewFlows = value(bytes);
                found.at = found.at.wrapping_sub(jiffies);
                array(&found)
            });
            let older = PerCpuValues::try_from(older.collect::<Vec<_>>()).expect("for each CPU");
            map.set(*vip, older, 0).expect("an element for each VIP");
        }
    }

    /// Sends segments like this one, each from another port, until the guard refuses one; how many
    /// began a flow.
    #[track_caller]
    pub(crate) fn flood(&mut self, hook: Hook, like: &Segment) -> u32 {
        const ENDLESS: u32 = 5_000;
        for let_in in 0..ENDLESS {
            let mut sent = like.clone();
            sent.src.set_port(fresh_port());
            match self.reason(hook, &sent) {
                Reason::NewFlowLimit => return let_in,
                Reason::NewFlow | Reason::FlowAdopted => {}
                other => panic!("{other:?} of {sent:?}"),
            }
        }
        panic!("none of {ENDLESS} was refused");
    }
}
