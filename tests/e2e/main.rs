//! The real `balancer`, real interfaces, real sockets.
//!
//! Each test builds its own node and hosts, so tests run side by side.

mod agent;
mod bed;
mod changes;
mod demo;
mod direct;
mod dsr;
mod edge;
mod examples;
mod expected;
mod fall_backs;
mod least_request;
mod listeners;
mod mesh_objects;
mod mesh_tcp;
mod odd;
mod own;
mod paths;
mod proxy;
mod quic;
mod requests;
mod restart;
mod shares;
mod snat;
mod take_over;
mod trace;
mod udp;
mod unload;
mod wires;
