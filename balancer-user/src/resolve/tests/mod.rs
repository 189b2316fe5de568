//! Resolution as a whole: a world in, routes out.

mod beside;
mod change;
mod change_http;
mod change_moved;
mod classes;
mod dialled;
mod examples;
mod findings;
mod gateway_changes;
mod gateway_requests;
mod http_lowering;
mod mesh_http;
mod mesh_objects;
mod mesh_tcp;
mod mesh_tcp_properties;
mod objects;
mod properties;
mod reach;
mod routes;
mod scale;
mod udp;
mod vips;
pub(crate) mod world;
