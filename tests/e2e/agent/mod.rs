//! `balancer agent`: what it follows, what it survives, what it tells.

mod dns;
mod dsr;
mod files;
mod forwarding;
mod guard;
mod hops;
mod life;
mod links;
mod metrics;
mod names;
mod refused;
mod snat;
mod world;
