//! MeshHTTPRoutes: what several of them come to for what is dialled, and the route that it gives
//! (semantics 4.4 to 4.7).

use super::mesh_policy::{self, ToPolicies};
use crate::policy::MeshHttpRoute;

mod check;
mod merge;
mod rules;

pub(super) use check::{by_themselves, check};
pub use merge::{Merged, merge};
pub(super) use rules::leads_to;

/// An item of a MeshHTTPRoute.
pub type Item<'a> = mesh_policy::Item<'a, MeshHttpRoute>;

/// Which MeshHTTPRoutes were considered. All that speak of what is called are merged.
pub type Ranking<'a> = mesh_policy::Ranking<'a, MeshHttpRoute>;

/// The MeshHTTPRoutes of one mesh.
pub(super) type MeshHttpRoutes<'a> = ToPolicies<'a, MeshHttpRoute>;
