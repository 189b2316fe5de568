//! Where a connection would go, and why.
