//! The only room that knows aya and the only writer of maps.
pub mod object;
