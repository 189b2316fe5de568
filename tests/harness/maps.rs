//! Maps as a whole: all that one holds, and how to empty it. Batched calls, because a map has
//! thousands of elements and a guest without KVM takes its time for each call.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapType, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;

/// Elements that one call asks for at least.
const AT_LEAST: u32 = 1024;

/// The part of `union bpf_attr` that batched calls read.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map and the sizes of its elements as system calls have them.
struct Elements<'a> {
    map: &'a MapData,
    kind: MapType,
    capacity: u32,
    key: usize,
    value: usize,
}

impl<'a> Elements<'a> {
    fn of(map: &'a MapData) -> Result<Self> {
        let info = map.info().context("cannot ask the kernel about a map")?;
        let kind = info.map_type()?;
        let value = usize::try_from(info.value_size())?;
        let value = match kind {
            MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash => {
                let cpus = aya::util::nr_cpus()
                    .map_err(|(file, e)| anyhow::anyhow!("cannot read {file}: {e}"))?;
                // A value for each possible CPU, each rounded up to whole words.
                value.next_multiple_of(8) * cpus
            }
            _ => value,
        };
        Ok(Self {
            map,
            kind,
            capacity: info.max_entries(),
            key: usize::try_from(info.key_size())?,
            value,
        })
    }

    /// One call; how many elements it dealt with, also where it failed half way.
    fn call(
        &self,
        command: libc::c_int,
        position: (u64, u64),
        keys: &mut [u8],
        values: &mut [u8],
        count: usize,
    ) -> (usize, io::Result<()>) {
        assert!(keys.len() >= count * self.key && values.len() >= count * self.value);
        let mut attributes = Attributes {
            in_batch: position.0,
            out_batch: position.1,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are exclusively borrowed and have the size that is passed
        // along. Keys and values have room for `count` elements, as asserted above; positions
        // are null or point to what `walk` holds with room for any map's position.
        let returned = unsafe {
            libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Attributes>())
        };
        let result = if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        (attributes.count as usize, result)
    }

    /// Hands out every element, and takes it out where the command says so.
    fn walk(&self, command: libc::c_int, mut visit: impl FnMut(&[u8], &[u8])) -> Result<()> {
        // A bucket must fit into one call, so there is room for the whole map.
        let room = self.capacity.max(AT_LEAST) as usize;
        let (mut keys, mut values) = (vec![0; room * self.key], vec![0; room * self.value]);
        // Hash maps note a bucket (4 bytes), others a key.
        let (mut from, mut to) = (vec![0u8; self.key.max(4)], vec![0u8; self.key.max(4)]);
        let mut first = true;
        loop {
            let begin = if first { 0 } else { from.as_mut_ptr() as u64 };
            let position = (begin, to.as_mut_ptr() as u64);
            let (count, result) = self.call(command, position, &mut keys, &mut values, room);
            let last = match result {
                Ok(()) => false,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
                Err(e) => return Err(e).context("a batched call"),
            };
            for at in 0..count {
                visit(&keys[at * self.key..][..self.key], &values[at * self.value..][..self.value]);
            }
            if last {
                return Ok(());
            }
            first = false;
            std::mem::swap(&mut from, &mut to);
        }
    }
}

/// All that a map holds, by key. Keys and values are bytes as the kernel has them; a per-CPU
/// value is that of each CPU in turn. Of a ring buffer, into which nobody looks without taking,
/// whether there is anything.
pub fn content(map: &MapData) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let elements = Elements::of(map)?;
    if elements.kind == MapType::RingBuf {
        let mut fds = [PollFd::new(map.fd().as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).context("cannot ask a ring buffer")? > 0 {
            found.insert(Vec::new(), Vec::new());
        }
        return Ok(found);
    }
    elements.walk(BPF_MAP_LOOKUP_BATCH, |key, value| {
        found.insert(key.to_vec(), value.to_vec());
    })?;
    Ok(found)
}

/// A per-CPU array of `u64`, to be read often.
pub struct Sums {
    map: MapData,
    capacity: u32,
    cpus: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Sums {
    /// Of this map.
    pub fn of(map: &MapData) -> Result<Self> {
        let map = MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?;
        let (capacity, value) = {
            let elements = Elements::of(&map)?;
            (elements.capacity, elements.value)
        };
        let room = capacity as usize;
        let (keys, values) = (vec![0; room * 4], vec![0; room * value]);
        Ok(Self { map, capacity, cpus: value / 8, keys, values })
    }

    /// Every element, added up over the CPUs.
    pub fn read(&mut self) -> Result<Vec<u64>> {
        let elements = Elements {
            map: &self.map,
            kind: MapType::PerCpuArray,
            capacity: self.capacity,
            key: 4,
            value: 8 * self.cpus,
        };
        let mut position = 0u32;
        let out = (&raw mut position) as u64;
        let room = self.capacity as usize;
        let (count, result) =
            elements.call(BPF_MAP_LOOKUP_BATCH, (0, out), &mut self.keys, &mut self.values, room);
        match result {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                return Err(e).context("a batched call");
            }
            _ if count != room => bail!("{count} elements of {room}"),
            _ => {}
        }
        let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        let sum = |element: &[u8]| element.chunks(8).map(number).sum();
        Ok(self.values.chunks(8 * self.cpus).map(sum).collect())
    }
}

/// Makes a map what it was when it was made: a hash map or ring buffer empty, an array all zero.
pub fn reset(map: &MapData) -> Result<()> {
    let elements = Elements::of(map)?;
    match elements.kind {
        MapType::Hash | MapType::LruHash => {
            elements.walk(BPF_MAP_LOOKUP_AND_DELETE_BATCH, |_, _| {})
        }
        MapType::Array | MapType::PerCpuArray => zero(map, elements.capacity),
        MapType::RingBuf => take(map).map(drop),
        other => bail!("{other:?} is not reset here"),
    }
}

/// Zeroes the first `count` elements of an array.
pub fn zero(map: &MapData, count: u32) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let elements = Elements::of(map)?;
    let mut keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
    let mut values = vec![0; count as usize * elements.value];
    let (_, result) =
        elements.call(BPF_MAP_UPDATE_BATCH, (0, 0), &mut keys, &mut values, count as usize);
    result.context("cannot zero the elements of an array")
}

/// Takes everything out of a ring buffer.
pub fn take(map: &MapData) -> Result<Vec<Vec<u8>>> {
    let map = MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?;
    let mut ring = RingBuf::try_from(Map::RingBuf(map))?;
    let mut taken = Vec::new();
    while let Some(bytes) = ring.next() {
        taken.push(bytes.to_vec());
    }
    Ok(taken)
}
