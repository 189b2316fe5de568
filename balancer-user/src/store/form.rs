//! The files of the state directory as they are written.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::resolve::{
    AssignedVip, DestinationKind, GATEWAY_CONTROLLER, Names, NoRoute, ProtocolRule, VipAssignments,
    VipOwner, VipProtocol,
};

/// `vips.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AssignmentsFile {
    pub(super) format: u32,
    pub(super) vips: Vec<AssignmentRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AssignmentRow {
    pub(super) mesh: String,
    /// Absent: a service by its tag.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) kind: Option<DestinationKind>,
    pub(super) service: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) ipv6: Option<Ipv6Addr>,
}

impl AssignmentRow {
    pub(super) fn into_assignment(self) -> (VipOwner, AssignedVip) {
        let owner = VipOwner {
            mesh: self.mesh.into(),
            kind: self.kind.unwrap_or(DestinationKind::Tags),
            name: self.service.into(),
        };
        (owner, AssignedVip { v4: self.ipv4, v6: self.ipv6 })
    }
}

/// `live-EPOCH-BOOT.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveFile {
    pub(super) format: u32,
    pub(super) bpffs: PathBuf,
    pub(super) vips4: (Ipv4Addr, u8),
    pub(super) vips6: (Ipv6Addr, u8),
    pub(super) zone: Option<String>,
    pub(super) no_route: NoRoute,
    #[serde(default = "gateway_controller")]
    pub(super) gateway_controller: String,
    #[serde(default)]
    pub(super) allow_plain: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) protocols: Vec<ProtocolRow>,
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub(super) names: Names,
    pub(super) assigned: Rows<AssignmentRow>,
    pub(super) texts: Rows<TextRow>,
    /// What differs from `texts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<ChangedText>,
}

/// Many rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Rows<T> {
    /// In the record itself: before the third version.
    Here(Vec<T>),
    /// As a text of this hash, so that a record that differs in other things names the same.
    Kept(String),
}

impl<T> Rows<T> {
    /// The hash of the text that they are in.
    pub(super) fn kept(&self) -> Option<String> {
        match self {
            Self::Here(_) => None,
            Self::Kept(hash) => Some(hash.clone()),
        }
    }
}

/// A text in place of the one with this index, or of none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedText {
    pub(super) index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<TextRow>,
}

/// What records of before this key was there were resolved with.
fn gateway_controller() -> String {
    GATEWAY_CONTROLLER.to_owned()
}

/// An entry of `vips.protocols`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProtocolRow {
    pub(super) mesh: String,
    pub(super) service: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) port: Option<NonZeroU16>,
    pub(super) protocol: VipProtocol,
}

impl ProtocolRow {
    pub(super) fn of(rule: &ProtocolRule) -> Self {
        let ProtocolRule { mesh, service, port, protocol } = rule.clone();
        Self { mesh, service, port, protocol }
    }

    pub(super) fn into_rule(self) -> ProtocolRule {
        let Self { mesh, service, port, protocol } = self;
        ProtocolRule { mesh, service, port, protocol }
    }
}

/// A text; without a hash: the place of one that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRow {
    pub(super) name: String,
    pub(super) hash: String,
}

/// Rows of assignments, in their order.
pub(super) fn assignment_rows(assignments: &VipAssignments) -> Vec<AssignmentRow> {
    assignments
        .iter()
        .map(|(VipOwner { mesh, kind, name }, vip)| AssignmentRow {
            mesh: mesh.to_string(),
            kind: (*kind != DestinationKind::Tags).then_some(*kind),
            service: name.to_string(),
            ipv4: vip.v4,
            ipv6: vip.v6,
        })
        .collect()
}
