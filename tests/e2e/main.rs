//! The real `balancer`, real interfaces, real sockets.
//!
//! Each test builds its own node and hosts, so tests run side by side.

mod wires;
