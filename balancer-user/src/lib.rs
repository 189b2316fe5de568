//! balancer, the library: traffic-routing policies into eBPF maps.
//!
//! ```text
//! files ──> policy ──> resolve ──> compile ──> kernel::publish ──> maps
//!           typed,     best route  tables,     one atomic flip
//!           spans      per source  ids
//!                      × VIP
//! ```
//!
//! Data flows one way; no room reaches back. `policy`, `resolve` and `compile` are pure: no
//! clock, sockets, kernel or randomness. `kernel` is the only room that knows aya and the only
//! writer of maps; `node` holds the order in which a set becomes the live one, and `agent` keeps
//! that true to files, interfaces and names. `explain` turns resolved routes into answers for
//! people, `plan` says what one set in place of another would change. `http` says what becomes of an
//! HTTP request. `cli` chooses words and exit codes. `metrics` is what Prometheus reads. `store`
//! keeps what must outlive a process (VIP assignments, what was loaded).

pub mod agent;
pub mod cli;
pub mod compile;
pub mod explain;
pub mod http;
pub mod kernel;
pub mod metrics;
pub mod node;
pub mod plan;
pub mod policy;
pub mod proxy;
pub mod resolve;
pub mod settings;
pub mod store;
