//! `balancer schema`: what documents look like, for editors.

use clap::Args;

use super::{
    args::{Form, Global},
    failure::Failure,
    output,
};
use crate::policy::schema::{self, NoSchema};

pub(super) const SCHEMA_ABOUT: &str = "\
Print a JSON schema of a kind of policy, for editors.

The schema (draft 2020-12) knows the fields, words and bounds of both forms of a document, the \
Universal one with `type` and that with `apiVersion` and `kind`. Without KIND it is one schema \
for a document of any kind, which fits a whole directory. `balancer check` knows more: what \
several fields or several documents say together.";

pub(super) const SCHEMA_AFTER: &str = "\
Examples:
  balancer schema > /etc/balancer/policies.schema.json
  balancer schema TrafficRoute -o yaml
  sed -i '1i # yaml-language-server: $schema=/etc/balancer/policies.schema.json' route.yaml

";

/// `schema`.
#[derive(Args, Debug)]
pub(crate) struct Schema {
    /// The kind, whatever the case of its letters; without one any kind will do
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

pub(crate) fn run(args: &Schema, global: &Global) -> Result<(), Failure> {
    let schema = match &args.kind {
        Some(kind) => schema::of_kind(kind).map_err(unknown)?,
        None => schema::of_any_kind(),
    };
    // People read it as editors do.
    let form = if global.output == Form::Text { Form::Json } else { global.output };
    output::value(form, &schema, ToString::to_string)
}

fn unknown(missing: NoSchema) -> Failure {
    let meant = missing.meant;
    let failure = Failure::wrong_usage(missing);
    match meant {
        Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
        None => failure.hint(format!("there are: {}", schema::names().join(", "))),
    }
}
