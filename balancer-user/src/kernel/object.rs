//! The eBPF object that `build.rs` built, embedded in this binary.

/// The bytes, aligned as an ELF reader needs them; empty in a stand-in.
static DATAPATH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath.o"));

/// This binary holds no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this binary was built with BALANCER_EBPF_SKIP set and holds no eBPF object: \
     build it again without that variable"
)]
pub struct StandIn;

/// The ELF object with all programs and maps, as aya and libbpf load it.
///
/// # Errors
/// [`StandIn`] where the build was told to leave the object out.
pub fn datapath() -> Result<&'static [u8], StandIn> {
    if DATAPATH.is_empty() { Err(StandIn) } else { Ok(DATAPATH) }
}
