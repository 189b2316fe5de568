//! Readers for metrics: what is counted, summed up in one pass over each map.

use std::collections::BTreeMap;

use balancer_ebpf::abi::{Counter, ID_FIRST, REAL_FIRST, map_names, route_kind};
use zerocopy::FromBytes as _;

use super::{KernelError, View, layout::shape, read::cpus, sys};

impl View {
    /// Counters by id from 0 to below `end` (fewer where there are no more), summed over all
    /// CPUs.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn counters_below(&self, end: u32) -> Result<Vec<Counter>, KernelError> {
        use std::os::fd::AsFd as _;
        let shape = shape(map_names::COUNTERS)?;
        // The kernel hands out one value for each possible CPU.
        let size = shape.value as usize;
        let mut counters = Vec::with_capacity(end as usize);
        sys::for_first_elements(
            self.counters.fd().as_fd(),
            shape.key as usize,
            size * cpus()?,
            end as usize,
            |_, values| {
                let mut sum = Counter::default();
                for value in values.chunks_exact(size) {
                    let one = Counter::read_from_bytes(value).unwrap_or_default();
                    sum.connections += one.connections;
                    sum.packets_in += one.packets_in;
                    sum.bytes_in += one.bytes_in;
                    sum.packets_out += one.packets_out;
                    sum.bytes_out += one.bytes_out;
                }
                counters.push(sum);
            },
        )
        .map_err(|e| KernelError::map(map_names::COUNTERS, "BPF_MAP_LOOKUP_BATCH", e))?;
        Ok(counters)
    }

    /// How many routes of the published set have a table of how many slots.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn table_sizes(&self) -> Result<BTreeMap<u32, u64>, KernelError> {
        self.consistent(|epoch| {
            let mut sizes = BTreeMap::new();
            for id in ID_FIRST..self.settings.routes {
                let route = self.route(epoch, id);
                if route.kind == route_kind::TABLE {
                    *sizes.entry(route.table.slots).or_default() += 1;
                }
            }
            Ok(sizes)
        })
    }

    /// When the maps were made, nanoseconds of `CLOCK_MONOTONIC`: others have another time.
    pub fn made_at_ns(&self) -> u64 {
        self.settings.base_ns
    }

    /// Live connections of all reals.
    pub fn active(&self) -> u64 {
        // One that goes below zero is put right by the programs in the next moment.
        let counts = (REAL_FIRST as usize..self.real_capacity()).map(|id| self.active.load(id));
        counts.filter(|count| *count <= u64::from(u32::MAX)).sum()
    }
}
