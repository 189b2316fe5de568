//! Test runs: one frame in, and what became of it.

use aya::programs::{Program, TestRun as _, TestRunOptions};
use balancer_ebpf::{
    abi::map_names,
    reason::{Fate, Reason},
};
use harness::maps::Sums;

use crate::model::is_datagram;

use super::{
    Hook, Outcome, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, World, XDP_DROP, XDP_PASS,
    XDP_REDIRECT, XDP_TX, pool::data,
};

/// Runs frame after frame; how often each reason was counted is asked once for each.
pub(crate) struct TestRuns {
    reasons: Sums,
    before: Vec<u64>,
}

impl TestRuns {
    /// In this world, in which nobody else counts meanwhile.
    pub(crate) fn new(world: &World) -> Self {
        let map = world.loaded().ebpf.map(map_names::REASONS).expect("REASONS");
        let mut reasons = Sums::of(data(map)).expect("a per-CPU array");
        let before = reasons.read().expect("REASONS");
        Self { reasons, before }
    }

    /// Packets by reason.
    pub(crate) fn counted(&self) -> &[u64] {
        &self.before
    }

    /// Test-runs a frame.
    pub(crate) fn run(&mut self, world: &mut World, hook: Hook, frame: &[u8]) -> Outcome {
        let mut out = vec![0; frame.len() + 256];
        let context = context(hook, world);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (!hook.is_xdp()).then_some(&context),
            ..Default::default()
        };
        let name = hook.program();
        let ran = match world.loaded_mut().ebpf.program_mut(name).expect("in the object") {
            Program::SchedClassifier(program) => program.test_run(options),
            Program::Xdp(program) => program.test_run(options),
            other => panic!("{name}: a program of another kind: {other:?}"),
        };
        let result = ran.unwrap_or_else(|e| panic!("test run of {} bytes: {e:?}", frame.len()));
        out.truncate(result.data_size_out as usize);
        let after = self.reasons.read().expect("REASONS");
        let before = std::mem::replace(&mut self.before, after);
        let verdict = result.return_value as i32;
        let grown = |reason: &&Reason| self.before[**reason as usize] != before[**reason as usize];
        let counted: Vec<_> = Reason::ALL.iter().filter(grown).copied().collect();
        let reason = if hook == Hook::Ask {
            assert_eq!(counted, [], "asking counts nothing");
            Reason::ALL[usize::try_from(verdict).expect("a reason")]
        } else {
            let sum = |counts: &[u64]| counts.iter().sum::<u64>();
            assert_eq!(sum(&self.before), sum(&before) + 1, "{counted:?}");
            let expected: &[i32] = match (hook.is_xdp(), counted[0].fate()) {
                (true, Fate::Pass) => &[XDP_PASS],
                (true, Fate::Forward) => &[XDP_REDIRECT],
                (true, Fate::Drop) => &[XDP_DROP],
                // Nothing says to a sender of datagrams what a reset says.
                (true, Fate::Reset) if is_datagram(frame) => &[XDP_DROP],
                (_, Fate::Reset) if is_datagram(frame) => &[TC_ACT_SHOT],
                (true, Fate::Reset | Fate::Answer) => &[XDP_TX],
                (_, Fate::Pass) => &[TC_ACT_UNSPEC],
                // How it is sent on is the test's to say.
                (_, Fate::Forward) => &[TC_ACT_UNSPEC, TC_ACT_REDIRECT],
                (_, Fate::Drop) => &[TC_ACT_SHOT],
                (_, Fate::Reset | Fate::Answer) => &[TC_ACT_REDIRECT],
            };
            assert!(expected.contains(&verdict), "verdict {verdict} for {}", counted[0].name());
            counted[0]
        };
        // Who asks is told the reason in the verdict's place.
        let verdict = if hook == Hook::Ask { TC_ACT_UNSPEC } else { verdict };
        Outcome { reason, verdict, packet: out }
    }
}

impl World {
    /// Packets counted under a reason.
    pub(crate) fn counted(&self, reason: Reason) -> u64 {
        TestRuns::new(self).counted()[reason as usize]
    }
}

/// The beginning of `struct __sk_buff` (include/uapi/linux/bpf.h): of what a test may set, only
/// the mark, the interfaces, and the size of segments differ from run to run.
fn context(hook: Hook, world: &World) -> [u8; 180] {
    const MARK: usize = 8;
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;
    const GSO_SIZE: usize = 176;
    let World { interface, segment, mark, .. } = *world;
    let came_by = if hook == Hook::Host { 0 } else { interface };
    let mut context = [0; 180];
    for (at, value) in
        [(MARK, mark), (INGRESS_IFINDEX, came_by), (IFINDEX, interface), (GSO_SIZE, segment)]
    {
        context[at..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}
