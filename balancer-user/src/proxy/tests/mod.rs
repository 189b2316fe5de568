//! The proxy with real sockets on loopback.

mod failures;
mod hostile;
mod requests;
mod world;
