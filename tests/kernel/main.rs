//! The kernel room against a real kernel: loading, publishing, attaching, unloading. Needs root.
//!
//! Every test has a pin directory and, where it attaches, a network namespace of its own.

mod ask;
mod attach;
mod bed;
mod capacity;
mod crash;
mod edge;
mod load;
mod patch;
mod proxied;
mod publish;
mod reals;
mod recount;
mod rejected;
mod snat;
mod world;
