//! The state directory: VIP assignments, and the texts that the live set was made of.
