//! Packet in, verdict and packet out, through the programs as the kernel's verifier took them
//! (`BPF_PROG_TEST_RUN`). Needs root.

mod devices;
mod dsr;
mod edge;
mod events;
mod fixtures;
mod flags;
mod flood;
mod guard;
mod hairpin;
mod host;
mod hostile;
mod malformed;
mod model;
mod object;
mod partial;
mod picks;
mod proxy;
mod reasons;
mod snat;
mod straight;
mod survival;
mod tuples;
mod udp;
mod walk;
mod world;
