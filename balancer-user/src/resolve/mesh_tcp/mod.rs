//! MeshTCPRoutes: which of them wins for what is dialled, and the route that it gives (semantics
//! 4.3, 4.6, 4.7).

use super::mesh_policy::{self, ToPolicies};
use crate::policy::MeshTcpRoute;

pub mod backends;
mod check;

pub(super) use check::{by_themselves, check};

/// An item of a MeshTCPRoute.
pub type Item<'a> = mesh_policy::Item<'a, MeshTcpRoute>;

/// Which MeshTCPRoutes were considered, and which of them won.
pub type Ranking<'a> = mesh_policy::Ranking<'a, MeshTcpRoute>;

/// The MeshTCPRoutes of one mesh.
pub(super) type MeshTcpRoutes<'a> = ToPolicies<'a, MeshTcpRoute>;
