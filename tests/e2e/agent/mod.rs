//! `balancer agent`: what it follows, what it survives, what it tells.

mod files;
mod metrics;
mod world;
