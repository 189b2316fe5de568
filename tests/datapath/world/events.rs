//! What a test asks the programs to tell, and what they told.

use aya::{maps::PerCpuArray, programs::TestRun as _, programs::TestRunOptions};
use balancer_ebpf::abi::{Event, Trace, Traced, map_names};
use harness::{Segment, maps};

use super::{Hook, World, array, pool::data, value};

impl World {
    /// Asks for events.
    pub(crate) fn trace(&mut self, trace: &Trace) {
        self.array::<{ size_of::<Trace>() }>(map_names::TRACE)
            .set(0, array(trace), 0)
            .expect("TRACE");
    }

    /// What is asked for now.
    pub(crate) fn asked(&mut self) -> Trace {
        value(&self.array::<{ size_of::<Trace>() }>(map_names::TRACE).get(&0, 0).expect("TRACE"))
    }

    /// Takes the events that were told since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        let map = data(self.loaded().ebpf.map(map_names::EVENTS).expect("EVENTS"));
        let taken = maps::take(map).expect("a ring buffer");
        taken.iter().map(|bytes| value(bytes)).collect()
    }

    /// What became of events, summed over the CPUs.
    pub(crate) fn traced(&self) -> Traced {
        let map = self.loaded().ebpf.map(map_names::TRACED).expect("TRACED");
        let map: PerCpuArray<_, [u8; 40]> = map.try_into().expect("per CPU");
        let mut sum = Traced::default();
        for cpu in map.get(&0, 0).expect("the element").iter() {
            let one: Traced = value(cpu);
            sum.told += one.told;
            sum.left_out += one.left_out;
            sum.limited += one.limited;
            sum.full += one.full;
        }
        sum
    }

    /// Sends a packet that stays what it is in `times` times, in one go.
    pub(crate) fn repeat(&mut self, hook: Hook, segment: &Segment, times: u32) {
        let frame = segment.bytes();
        self.program(hook.program())
            .test_run(TestRunOptions { data_in: Some(&frame), repeat: times, ..Default::default() })
            .expect("a test run");
    }
}
