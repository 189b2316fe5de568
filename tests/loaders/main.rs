//! The object in the hands of other loaders than `kernel`: libbpf and bpftool take the one that
//! balancer carries, and the debug object's lines are read with aya-log. Needs root.

mod bpftool;
mod libbpf;
mod log;
mod packet;
