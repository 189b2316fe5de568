//! What the suites share: namespaces and wires, real TCP servers and clients, and the
//! `balancer` command inside a namespace.
//!
//! Everything here removes what it made when it is dropped, also while a test panics, carries
//! the process id in its name, and removes what dead processes left. Nothing here decides
//! whether balancer is right: expectations belong to the suites.

pub mod agent;
pub mod answerer;
pub mod backends;
pub mod bpffs;
pub mod bulk;
pub mod cgroup;
pub mod datagram;
pub mod feature;
mod flood;
pub mod hooks;
pub mod instance;
pub mod interrupt;
pub mod kept;
pub mod maps;
pub mod netns;
pub mod packet;
pub mod ping;
pub mod privileges;
pub mod scale;
pub mod shell;
pub mod tap;
pub mod topology;
pub mod translated;
mod tunnel;
mod uplink;
pub mod wire;

pub use agent::Agent;
pub use backends::{Connection, EchoServer, Greeting};
pub use bpffs::Bpffs;
pub use cgroup::Cgroup;
pub use datagram::Datagram;
pub use feature::{Feature, since};
pub use flood::Flood;
pub use instance::Instance;
pub use kept::Kept;
pub use netns::NetNs;
pub use packet::Segment;
pub use privileges::{Root, root_or_skip};
pub use scale::{patience, scaled};
pub use shell::Shell;
pub use topology::{Host, Topology};
pub use translated::translated;
pub use tunnel::TunnelEnd;
pub use uplink::Uplink;
