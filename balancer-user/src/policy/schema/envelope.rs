//! What stands around every specification: kind, name, mesh, labels, in both forms.

use serde_json::json;

use super::{
    super::{
        fields::Form, kinds::Kind, mesh_kinds::MeshKind, mesh_service::LABEL_CHARACTERS_MAX,
        metadata::NAME_CHARACTERS_MAX, object::ObjectKind,
    },
    names::{self, SUBDOMAIN, only},
    write::{Member, Schema, any, list, may, must, never, object, text, word},
};

const MESH: &str = "The mesh that it is in, e.g. `default`";
const NAME: &str = "Unique among documents of its kind in its mesh";
const STATUS: &str = "Written by a control plane";

/// A kind of Kuma's whose fields stand beside `type` and `name`, and on Kubernetes under `spec`.
pub(super) fn old(kind: Kind, about: &str, spec: Vec<Member>) -> Schema {
    let required = spec.iter().any(|member| member.required);
    let mut universal = universal(kind);
    universal.extend(spec.clone());
    let mut kubernetes = kubernetes(kind);
    kubernetes.push(if kind == Kind::Mesh {
        may("mesh", any().about("Without effect: a Mesh is in no mesh"))
    } else {
        may("mesh", names_a_mesh().about("The mesh; or the label `kuma.io/mesh`"))
    });
    kubernetes.push(part(required, "spec", object(Form::Proto, spec)));
    kubernetes.push(may("status", any().about(STATUS)));
    both(about, object(Form::Proto, universal), object(Form::Proto, kubernetes))
}

/// A kind of Kuma's whose fields stand under `spec` in both forms. `status` is of kinds of which it
/// is read.
pub(super) fn new(
    kind: MeshKind,
    about: &str,
    spec: Vec<Member>,
    status: Option<Schema>,
) -> Schema {
    let required = spec.iter().any(|member| member.required);
    let spec = part(required, "spec", object(Form::Schema, spec));
    let status = may("status", status.unwrap_or_else(any).about(STATUS));
    let refused = never().about("Not here: write it as the label `kuma.io/mesh`");
    let mut universal = universal(Kind::Kuma(kind));
    universal.extend([spec.clone(), status.clone()]);
    let mut kubernetes = kubernetes(Kind::Kuma(kind));
    kubernetes.extend([may("mesh", refused), spec, status]);
    both(about, object(Form::Schema, universal), object(Form::Schema, kubernetes))
}

/// A kind of Kubernetes or the Gateway API. `fields` are those beside `metadata`.
pub(super) fn of_object(kind: ObjectKind, about: &str, fields: Vec<Member>) -> Schema {
    let label = matches!(kind, ObjectKind::Service | ObjectKind::Namespace);
    let name = if label { names::label() } else { names::subdomain() };
    let namespace = if kind.namespaced() {
        names::label().about("The namespace").or("default")
    } else {
        never().about("It is in no namespace")
    };
    let mut metadata = vec![
        must("name", name.about("Unique among documents of its kind in its namespace")),
        may("namespace", namespace),
        may("labels", names::object_labels().about("Labels")),
        may("creationTimestamp", names::time().about("The oldest of equal routes goes first")),
    ];
    metadata.extend(of_the_cluster());
    let mut members = vec![
        must("apiVersion", word(kind.api_versions().iter().copied())),
        must("kind", only(kind.name())),
        must("metadata", object(kind.form(), metadata)),
    ];
    members.extend(fields);
    members.push(may("status", any().about("Written by the cluster")));
    object(kind.form(), members).about(about)
}

/// The form with `apiVersion`, and the other one.
fn both(about: &str, universal: Schema, kubernetes: Schema) -> Schema {
    any()
        .about(about)
        .with("if", json!({"required": ["apiVersion"]}))
        .with("then", kubernetes.about(about).value())
        .with("else", universal.about(about).value())
}

fn part(required: bool, name: &'static str, schema: Schema) -> Member {
    if required { must(name, schema) } else { may(name, schema) }
}

fn names_a_mesh() -> Schema {
    text().like(names::MESH)
}

/// The name of a kind's documents. Objects that stand for services become one label of a host name.
fn name(kind: Kind) -> Schema {
    let label = matches!(
        kind,
        Kind::Kuma(
            MeshKind::MeshService | MeshKind::MeshExternalService | MeshKind::MeshMultiZoneService
        )
    );
    let most = if label { LABEL_CHARACTERS_MAX } else { NAME_CHARACTERS_MAX };
    text().like(SUBDOMAIN).characters(1..=most).about(NAME)
}

fn universal(kind: Kind) -> Vec<Member> {
    let mut members = vec![must("type", only(kind.name())), must("name", name(kind))];
    members.push(if kind == Kind::Mesh {
        may("mesh", any().about("Without effect: a Mesh is in no mesh"))
    } else {
        must("mesh", names_a_mesh().about(MESH))
    });
    members.extend([
        may("labels", names::labels().about("Labels; policies select Dataplanes by them")),
        may("creationTime", names::time().about("The newest of equal TrafficRoutes goes first")),
        may("modificationTime", any()),
    ]);
    members
}

fn kubernetes(kind: Kind) -> Vec<Member> {
    let mut metadata = vec![
        must("name", name(kind)),
        may("namespace", text().about("The namespace")),
        may("labels", names::labels().about("Labels; `kuma.io/mesh` names the mesh")),
        may(
            "creationTimestamp",
            names::time().about("The newest of equal TrafficRoutes goes first"),
        ),
    ];
    metadata.extend(of_the_cluster());
    vec![
        must("apiVersion", only("kuma.io/v1alpha1")),
        must("kind", only(kind.name())),
        must("metadata", object(Form::Proto, metadata)),
    ]
}

/// What the cluster writes beside.
fn of_the_cluster() -> Vec<Member> {
    super::super::envelope::OF_THE_CLUSTER.iter().map(|name| may(name, any())).collect()
}

/// `vips` and `addresses`, of which all that is known is kept.
pub(super) fn service_status() -> Schema {
    let vip = || object(Form::Core, vec![may("ip", text().about("An IP address"))]);
    let address = object(Form::Core, vec![may("hostname", text())]);
    object(
        Form::Core,
        vec![
            may("vips", list(vip()).about("Addresses that clients dial")),
            may("vip", vip().about("The same of a MeshExternalService")),
            may("addresses", list(address).about("Host names")),
        ],
    )
}

/// A label selector of Kubernetes.
pub(super) fn label_selector() -> Schema {
    let expression = object(
        Form::Schema,
        vec![
            must("key", text().like(names::QUALIFIED)),
            must("operator", word(super::super::gateway::selector::OPERATORS.iter().copied())),
            may("values", list(text().like(names::LABEL_VALUE).characters(0..=63))),
        ],
    )
    .when("operator", "In", &["values"])
    .when("operator", "NotIn", &["values"]);
    object(
        Form::Schema,
        vec![may("matchLabels", names::object_labels()), may("matchExpressions", list(expression))],
    )
}
