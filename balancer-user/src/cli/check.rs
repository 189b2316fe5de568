//! `balancer check`: validate policies without touching anything.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    args::{Check, Form, Global},
    failure::Failure,
    inputs, output,
};
use crate::{
    policy::{self, Documents, ReadOptions, Reading, ResourceReport, Severity},
    resolve,
    settings::Settings,
};

pub(crate) fn run(args: &Check, global: &Global) -> Result<(), Failure> {
    let form = global.output;
    if form == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let options = ReadOptions {
        api: args.api,
        strict: args.strict || args.api.is_some(),
        deny_unknown: args.deny_unknown,
    };
    let mut reading = read(&args.files.file, &options, form)?;
    // What stands between resources is our judgement, not that of the version asked for; and on
    // part of the resources it would report the absence of those that are invalid.
    if options.lenient() && reading.report.valid() {
        let settings = Settings::default().resolve_settings(Default::default());
        let resolved = resolve::resolve(&reading.set, &settings);
        reading.report.merge(&resolved.diagnostics);
    }
    print(form, &reading)
}

/// Reads `-f`. For people a failure says it all; programs get the form that they asked for.
pub(crate) fn read(
    paths: &[PathBuf],
    options: &ReadOptions,
    form: Form,
) -> Result<Reading, Failure> {
    inputs::read(paths, options).or_else(|unread| {
        if form != Form::Text {
            output::value(form, &CheckOutput::unread(&unread), |_| String::new())?;
        }
        Err(unread.into())
    })
}

/// Prints every finding; fails where one of them is an error.
pub(crate) fn print(form: Form, reading: &Reading) -> Result<(), Failure> {
    let report = &reading.report;
    let resources = reading.resources();
    output::value(form, &CheckOutput::new(report.documents(), &resources), |_| {
        policy::render::report(report, output::stdout_colours())
    })?;
    output::say(&inputs::summary(report));
    if report.valid() { Ok(()) } else { Err(Failure::reported()) }
}

/// `check -o json`: names and order of the fields are a contract.
#[derive(Serialize)]
struct CheckOutput<'a> {
    valid: bool,
    resources: Vec<ResourceOutput<'a>>,
}

#[derive(Serialize)]
struct ResourceOutput<'a> {
    kind: Option<&'a str>,
    mesh: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    file: &'a str,
    document: u32,
    valid: bool,
    violations: Vec<ViolationOutput<'a>>,
}

#[derive(Serialize)]
struct ViolationOutput<'a> {
    severity: Severity,
    field: &'a str,
    message: &'a str,
    line: Option<u32>,
    column: Option<u32>,
}

impl<'a> CheckOutput<'a> {
    fn new(documents: &'a Documents, resources: &'a [ResourceReport]) -> Self {
        let valid = resources.iter().all(ResourceReport::valid);
        let resources = resources.iter().map(|resource| ResourceOutput {
            kind: resource.kind.as_deref(),
            mesh: resource.mesh.as_deref(),
            namespace: resource.namespace.as_deref(),
            name: resource.name.as_deref(),
            file: documents.file(resource.document).unwrap_or_default(),
            document: documents.stand(resource.document).unwrap_or_default().number,
            valid: resource.valid(),
            violations: resource
                .violations
                .iter()
                .map(|finding| {
                    let position = finding.span.and_then(|span| documents.position(span));
                    ViolationOutput {
                        severity: finding.severity,
                        field: &finding.field,
                        message: &finding.message,
                        line: position.map(|at| at.line),
                        column: position.map(|at| at.column),
                    }
                })
                .collect(),
        });
        Self { valid, resources: resources.collect() }
    }

    /// One resource of which nothing is known but where it should have been.
    fn unread(unread: &'a inputs::Unread) -> Self {
        let violation = ViolationOutput {
            severity: Severity::Error,
            field: "",
            message: &unread.message,
            line: unread.line,
            column: unread.line.map(|_| 1),
        };
        let resource = ResourceOutput {
            kind: None,
            mesh: None,
            namespace: None,
            name: None,
            file: &unread.file,
            document: 0,
            valid: false,
            violations: vec![violation],
        };
        Self { valid: false, resources: vec![resource] }
    }
}
