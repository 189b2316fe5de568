//! The command line as a person or a script meets it: words, output forms, exit codes, and
//! what a command that fails leaves behind.
//!
//! `BALANCER_BLESS=1` rewrites the committed snapshot instead of comparing with it.

mod bad_input;
mod explain_requests;
mod gateways;
mod help;
mod live;
mod man;
mod maps;
mod plan;
mod refused;
mod requests;
mod requirements;
mod run;
mod schema;
mod trace;
mod watch;
mod world;
