//! The only room that knows aya and the only writer of maps.
//!
//! Belongs here: the pin directory, loading, publishing, attaching, unloading, and reading back.
//! Does not know policies, names or words for people: it speaks ids and addresses. The order in
//! which things are written is `docs/datapath.md`; the layout of what is written is
//! [`balancer_ebpf::abi`].
//!
//! ```text
//! lock ──> Datapath::open | create ──> publish(Tables) ──> attach(interfaces)
//!          View::open (no lock)    ──> readers, ask
//! ```
//!
//! A [`Datapath`] is the right to write, a [`View`] only reads. Both work from pins alone: the
//! programs keep forwarding when the process that loaded them has ended.

mod addresses;
mod ask;
mod assignment;
mod attach;
mod counted;
mod create;
mod datapath;
mod direct;
mod error;
mod events;
mod flows;
mod forwarding;
mod fragments;
mod health;
mod hops;
mod layout;
mod lock;
mod mapped;
mod neighbours;
mod netlink;
pub mod object;
pub mod passed;
mod proxy;
mod publish;
mod raw;
mod read;
mod recount;
pub mod requirements;
mod snat;
mod snippet;
mod sys;
mod unload;
mod verifier;
mod view;

pub use ask::{Answer, Tuple};
pub use attach::{
    AttachOptions, Attached, Attachment, Direction, ForeignProgram, Hook, Link, XdpMode,
    XdpOptions, tunnels_without_source, xdp_generic_by_name, xdp_on_veth,
};
pub use create::{MapMemory, map_memory};
pub use datapath::Datapath;
pub use error::KernelError;
pub use events::{Event, Told, TraceRequest, Tracer, Woken};
pub use flows::FlowRow;
pub use forwarding::{Asked, Forwarding, Hooked, Judged, Obstacle};
pub use fragments::FragmentRow;
pub use health::{MapFill, ProgramRow};
pub use hops::NextHops;
pub use lock::{Lock, lock};
pub use neighbours::{Neighbour, neighbours};
pub use netlink::{Interface, interfaces, without_route};
pub use proxy::{Delivery, Listeners, UpstreamMark};
pub use publish::{BeforeFlip, PublishOptions, Published, Written};
pub use raw::{Element, MapRow};
pub(crate) use read::real_address;
pub use read::{ClassRouteRow, CounterRow, RealRow, RouteRow, SourceRow, TableContent, VipRow};
pub use recount::Recount;
pub use snat::{Snat, SnatFinding};
pub use unload::{Unloaded, unload};
pub use verifier::{Origin, Rejection, SourceLine};
pub use view::View;

/// An error of aya's about the map `name`.
fn map_failed(name: &str, error: aya::maps::MapError) -> KernelError {
    use aya::maps::MapError;
    match error {
        MapError::CreateError { io_error, .. } => {
            KernelError::map(name, "BPF_MAP_CREATE", io_error)
        }
        MapError::SyscallError(e) => KernelError::map(name, e.call, e.io_error),
        other => KernelError::Object(format!("map {name}: {other}")),
    }
}

/// An error of aya's about a program or its link.
fn program_failed(action: String, error: aya::programs::ProgramError) -> KernelError {
    use aya::programs::ProgramError;
    match error {
        ProgramError::SyscallError(e) => KernelError::system(action, e.io_error),
        other => KernelError::system(action, std::io::Error::other(other)),
    }
}
