//! Packet in, verdict and packet out, through the programs as the kernel's verifier took them
//! (`BPF_PROG_TEST_RUN`). Needs root.

mod walk;
mod world;
