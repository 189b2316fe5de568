//! The first load: sizes, memory, programs, pins.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{Program, ProgramError},
};
use balancer_ebpf::abi::{
    ABI_VERSION, ROUTES_CAPACITY, SOURCES_CAPACITY, Settings, VIPS_CAPACITY, global_names,
    map_names, program_names,
};

use crate::compile::Limits;

use super::{
    KernelError, Rejection,
    layout::{MapShape, Pins, SHAPES},
    mapped::{Access, Mapped},
    read, snippet, sys,
};

/// Loads `object` and pins everything below `pins`, `SETTINGS.ready` last. Whatever was pinned
/// there is gone when this fails.
pub(crate) fn create(pins: &Pins, limits: &Limits, object: &[u8]) -> Result<(), KernelError> {
    check_limits(limits)?;
    check_memory(limits, read::cpus()? as u64, available_memory()?)?;
    let made = load_and_pin(pins, limits, object);
    if made.is_err() {
        remove_pins(pins)?;
    }
    made
}

/// The smallest maps that hold something.
const SMALLEST: Limits = Limits {
    flows: 1,
    half_open: 1,
    services: 1,
    sources: 1,
    routes: 1,
    reals: 1,
    counters: 1,
    arena_slots: 1,
};

/// Loads the programs of `object` with the smallest maps and drops them again.
pub(crate) fn try_load(object: &[u8]) -> Result<(), KernelError> {
    load(&SMALLEST, object).map(drop)
}

/// The object in the kernel, not pinned yet.
struct Loaded {
    ebpf: Ebpf,
    hz: u32,
    /// Elements in one half of `VIPS`, `SOURCES` and `ROUTES`.
    halves: [u32; 3],
}

fn load(limits: &Limits, object: &[u8]) -> Result<Loaded, KernelError> {
    let hz = sys::hz().map_err(|e| KernelError::system("asking for the tick", e))?;
    let half = |name| Ok::<_, KernelError>((shape_entries(name, limits)? / 2) as u32);
    let (vips, sources, routes) =
        (half(map_names::VIPS)?, half(map_names::SOURCES)?, half(map_names::ROUTES)?);
    let knows = snippet::knows_ipv6_checksum_flag()
        .map_err(|e| KernelError::system("probing the checksum helper", e))?;
    let ipv6_flag = if knows { snippet::IPV6_CHECKSUM_FLAG } else { 0 };
    let mut loader = EbpfLoader::new();
    // No type relocations: reading the kernel's BTF would only cost time.
    loader.btf(None);
    for shape in SHAPES {
        let entries = u32::try_from((shape.entries)(limits)).map_err(|_| KernelError::Limit {
            setting: shape.setting,
            value: (shape.entries)(limits),
            why: format!("map {} cannot have that many elements", shape.name),
        })?;
        loader.map_max_entries(shape.name, entries);
    }
    loader
        .override_global(global_names::HZ, &hz, true)
        .override_global(global_names::IPV6_CSUM_FLAG, &ipv6_flag, true)
        .override_global(VIPS_CAPACITY, &vips, true)
        .override_global(SOURCES_CAPACITY, &sources, true)
        .override_global(ROUTES_CAPACITY, &routes, true);
    let mut ebpf = loader.load(object).map_err(load_failed)?;
    for &name in program_names::ALL {
        let loaded = match program(&mut ebpf, name)? {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => return Err(KernelError::Object(format!("program {name} is of no known kind"))),
        };
        loaded.map_err(|e| program_refused(name, e, object))?;
    }
    Ok(Loaded { ebpf, hz, halves: [vips, sources, routes] })
}

fn load_and_pin(pins: &Pins, limits: &Limits, object: &[u8]) -> Result<(), KernelError> {
    let Loaded { mut ebpf, hz, halves: [vips, sources, routes] } = load(limits, object)?;
    for dir in [pins.maps(), pins.programs(), pins.links(), pins.clsact()] {
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(KernelError::system(format!("making {}", dir.display()), e));
            }
            _ => {}
        }
    }
    for shape in SHAPES {
        let map = ebpf
            .map(shape.name)
            .ok_or_else(|| KernelError::Object(format!("it has no map {}", shape.name)))?;
        map.pin(pins.map(shape.name)).map_err(|e| pin_failed(&pins.map(shape.name), e))?;
    }
    for &name in program_names::ALL {
        let path = pins.program(name);
        program(&mut ebpf, name)?.pin(&path).map_err(|e| pin_failed(&path, e))?;
    }

    let settings = settings_words(&ebpf)?;
    let jiffies = snippet::jiffies().map_err(|e| KernelError::system("reading jiffies", e))?;
    settings.write(
        0,
        &Settings {
            abi_version: ABI_VERSION,
            ready: 0,
            gone_reset_ns: 0,
            vips,
            sources,
            routes,
            hz,
            base_jiffies: jiffies,
            new_flows: 0,
            base_ns: read::now()?,
            ..Settings::default()
        },
    );
    // `ready` shares a word with the version.
    let ready = Settings { ready: 1, ..settings.read(0) };
    settings.write(0, &ready);
    Ok(())
}

fn settings_words(ebpf: &Ebpf) -> Result<Mapped, KernelError> {
    use std::os::fd::AsFd as _;
    match ebpf.map(map_names::SETTINGS) {
        Some(aya::maps::Map::Array(map)) => {
            Mapped::new(map.fd().as_fd(), size_of::<Settings>() / 8, Access::Write)
                .map_err(|e| KernelError::map(map_names::SETTINGS, "mmap", e))
        }
        _ => Err(KernelError::Object("SETTINGS is no array".into())),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, KernelError> {
    ebpf.program_mut(name).ok_or_else(|| KernelError::Object(format!("it has no program {name}")))
}

fn program_refused(name: &str, error: ProgramError, object: &[u8]) -> KernelError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            if log.trim().is_empty() {
                return KernelError::system(format!("loading program {name}"), io_error);
            }
            Box::new(Rejection::new(name, io_error, &log, object)).into()
        }
        other => super::program_failed(format!("loading program {name}"), other),
    }
}

fn load_failed(error: EbpfError) -> KernelError {
    match error {
        EbpfError::MapError(e) => {
            let name = match &e {
                MapError::CreateError { name, .. } => name.clone(),
                _ => "of the object".into(),
            };
            super::map_failed(&name, e)
        }
        other => KernelError::Object(other.to_string()),
    }
}

fn pin_failed(path: &Path, error: aya::pin::PinError) -> KernelError {
    let action = format!("pinning {}", path.display());
    match error {
        aya::pin::PinError::SyscallError(e) => KernelError::system(action, e.io_error),
        other => KernelError::system(action, io::Error::other(other)),
    }
}

/// Removes the pins of maps and programs of a load that did not get to its end, and the
/// directories if they are empty then.
pub(crate) fn remove_pins(pins: &Pins) -> Result<(), KernelError> {
    for dir in [pins.maps(), pins.programs(), pins.links(), pins.clsact()] {
        let failed = |e: io::Error| KernelError::system(format!("removing {}", dir.display()), e);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        fs::remove_dir(&dir).map_err(failed)?;
    }
    Ok(())
}

fn shape_entries(name: &str, limits: &Limits) -> Result<u64, KernelError> {
    Ok((super::layout::shape(name)?.entries)(limits))
}

/// Limits that would make a map of no or too many elements.
fn check_limits(limits: &Limits) -> Result<(), KernelError> {
    for (setting, value, max) in [
        ("limits.flows", limits.flows, 1 << 28),
        ("limits.half_open", limits.half_open, 1 << 28),
        ("limits.services", limits.services, 1 << 24),
        ("limits.sources", limits.sources, 1 << 24),
        ("limits.routes", limits.routes, 1 << 24),
        ("limits.reals", limits.reals, 1 << 24),
        ("limits.counters", limits.counters, 1 << 24),
        ("limits.arena_slots", limits.arena_slots, u32::MAX),
    ] {
        let why = if value == 0 {
            "it must be at least 1".into()
        } else if value > max {
            format!("it may be at most {max}")
        } else {
            continue;
        };
        return Err(KernelError::Limit { setting, value: u64::from(value), why });
    }
    Ok(())
}

/// Bytes that a map takes when it is made. The arena's chunks come later, one by one, and are
/// counted as if they were all there.
fn bytes(shape: &MapShape, limits: &Limits, cpus: u64) -> u64 {
    let value = if shape.name == map_names::ARENA {
        balancer_ebpf::abi::CHUNK_WORDS as u64 * 8
    } else if shape.per_cpu {
        u64::from(shape.value).next_multiple_of(8) * cpus
    } else {
        u64::from(shape.value).next_multiple_of(8)
    };
    let key = if shape.overhead > 0 { u64::from(shape.key).next_multiple_of(8) } else { 0 };
    (shape.entries)(limits) * (key + value + u64::from(shape.overhead))
}

/// What one map takes of the kernel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// Map.
    pub name: &'static str,
    /// The setting that sizes it; empty: fixed.
    pub setting: &'static str,
    /// Bytes, of all possible CPUs together.
    pub bytes: u64,
}

/// What maps of the sizes that `limits` ask for take. The arena counts with all of its chunks,
/// which come as tables need them.
///
/// # Errors
/// The number of possible CPUs cannot be read.
pub fn map_memory(limits: &Limits) -> Result<Vec<MapMemory>, KernelError> {
    let cpus = read::cpus()? as u64;
    let rows = SHAPES.iter().map(|shape| MapMemory {
        name: shape.name,
        setting: shape.setting,
        bytes: bytes(shape, limits, cpus),
    });
    Ok(rows.collect())
}

/// Refuses limits whose maps do not fit into memory: the kernel would begin to allocate and
/// might end other processes for it.
fn check_memory(limits: &Limits, cpus: u64, available: u64) -> Result<(), KernelError> {
    let needed: u64 = SHAPES.iter().map(|s| bytes(s, limits, cpus)).sum();
    if needed <= available {
        return Ok(());
    }
    let Some(largest) = SHAPES.iter().max_by_key(|s| bytes(s, limits, cpus)) else {
        return Ok(());
    };
    let entries = (largest.entries)(limits);
    let each = bytes(largest, limits, cpus).checked_div(entries).unwrap_or(0);
    Err(KernelError::Memory {
        needed_mib: needed.div_ceil(1 << 20),
        available_mib: available >> 20,
        map: largest.name,
        map_mib: bytes(largest, limits, cpus).div_ceil(1 << 20),
        detail: if largest.per_cpu {
            format!("{cpus} CPUs × {entries} elements × {} bytes", each / cpus.max(1))
        } else {
            format!("{entries} elements × {each} bytes")
        },
        setting: largest.setting,
    })
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available_memory() -> Result<u64, KernelError> {
    let failed = |e| KernelError::system("reading MemAvailable of /proc/meminfo", e);
    let text = fs::read_to_string("/proc/meminfo").map_err(failed)?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| failed(io::Error::other("no such line")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_before_it_is_taken() {
        let limits = Limits { counters: 10_000_000, ..Limits::default() };
        let error = check_memory(&limits, 64, 8 << 30).expect_err("too much");
        let text = error.to_string();
        assert!(text.contains("COUNTERS") && text.contains("limits.counters"), "{text}");
        assert!(text.contains("64 CPUs × 10000001 elements × 40 bytes"), "{text}");
        assert!(check_memory(&Limits::default(), 2, 4 << 30).is_ok());
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        let error = check_limits(&Limits { reals: 0, ..Limits::default() }).expect_err("zero");
        assert!(error.to_string().contains("limits.reals is 0"), "{error}");
    }
}
