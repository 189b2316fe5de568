//! The form in which every bench says what it measured.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// What a bench is told.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Form of the output
    #[arg(short, value_enum, default_value = "text")]
    pub(crate) output: Output,
    /// Only measures whose name contains one of these
    pub(crate) filters: Vec<String>,
    /// Repetitions; each measures everything once, in rotated order
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Cargo passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether a measure of this name is asked for.
    pub(crate) fn wanted(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }
}

/// See [`Options::output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people
    Text,
    /// A list of measures
    Json,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// What was measured.
    pub(crate) name: String,
    /// Unit of `min`, `median` and `max`.
    pub(crate) unit: Cow<'static, str>,
    /// Number of values.
    pub(crate) runs: usize,
    /// The smallest value.
    pub(crate) min: f64,
    /// The middle value; of an even number of values the lower of the two in the middle.
    pub(crate) median: f64,
    /// The largest value.
    pub(crate) max: f64,
    /// Median of the ratios of each value to the baseline's of the same repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// Name of what `ratio` is to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<String>,
}

impl Measure {
    /// Sums up the values, of which there is at least one.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        let sorted = sorted(values);
        Self {
            name: name.into(),
            unit: unit.into(),
            runs: sorted.len(),
            min: sorted[0],
            median: middle(&sorted),
            max: sorted[sorted.len() - 1],
            ratio: None,
            baseline: None,
        }
    }

    /// Compares with the values of a baseline, taken in the same repetitions.
    #[must_use]
    pub(crate) fn against(
        mut self,
        name: impl Into<String>,
        values: &[f64],
        baseline: &[f64],
    ) -> Self {
        let ratios: Vec<f64> = values.iter().zip(baseline).map(|(v, b)| v / b).collect();
        self.ratio = Some(middle(&sorted(&ratios)));
        self.baseline = Some(name.into());
        self
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}

/// Prints all measures.
///
/// # Errors
/// Whoever reads them is gone.
pub(crate) fn print(measures: &[Measure], output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer_pretty(&mut out, measures)?;
        return writeln!(out);
    }
    let width = measures.iter().map(|m| m.name.len()).max().unwrap_or(0).max(4);
    writeln!(
        out,
        "{:<width$}  {:>5}  {:>10}  {:>10}  {:>10}  unit  ratio",
        "name", "runs", "min", "median", "max"
    )?;
    for m in measures {
        write!(
            out,
            "{:<width$}  {:>5}  {:>10.1}  {:>10.1}  {:>10.1}  {:<4}",
            m.name, m.runs, m.min, m.median, m.max, m.unit
        )?;
        if let (Some(ratio), Some(baseline)) = (m.ratio, &m.baseline) {
            write!(out, "  {ratio:.2} × {baseline}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
