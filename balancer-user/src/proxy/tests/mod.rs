//! The proxy with real sockets on loopback.

mod ends;
mod failures;
mod floods;
mod frames;
mod hostile;
mod requests;
mod world;
