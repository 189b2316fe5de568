//! `cargo xtask docs`: the parts of pages that the code knows better, written from the code.
//! `cargo xtask lint` finds a page that was not written anew.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use balancer_ebpf::reason::Reason;

use crate::run;

/// What the metrics are, without the rest of the agent: that would take compiling the programs.
#[path = "../../balancer-user/src/metrics/families.rs"]
#[expect(unreachable_pub, reason = "it is written for another crate")]
mod families;

use families::{Family, Kind};

const BEGIN: &str = "<!-- `cargo xtask docs` writes what follows -->";
const END: &str = "<!-- end of what it writes -->";

/// A page, and what belongs between its marks.
type Page = (&'static str, fn() -> String);

const PAGES: [Page; 2] = [("docs/metrics.md", metrics), ("docs/reasons.md", reasons)];

/// Writes every page.
pub(crate) fn run() -> Result<()> {
    for (path, content) in PAGES {
        let file = run::root().join(path);
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {path}"))?;
        let written = page(&text, &content()).with_context(|| path)?;
        if written == text {
            println!("{path} is as the code says");
        } else {
            std::fs::write(&file, written).with_context(|| format!("writing {path}"))?;
            println!("{path} is written anew");
        }
    }
    Ok(())
}

/// Pages that do not say what the code says, or are missing, and why. `text` gives a page's.
pub(crate) fn stale<'t>(text: impl Fn(&str) -> Option<&'t str>) -> Vec<(&'static str, String)> {
    let fault = |(path, content): Page| {
        let Some(text) = text(path) else { return Some((path, "is missing".to_owned())) };
        match page(text, &content()) {
            Ok(written) if written == text => None,
            Ok(_) => Some((path, "says not what the code does: `cargo xtask docs`".to_owned())),
            Err(error) => Some((path, error.to_string())),
        }
    };
    PAGES.into_iter().filter_map(fault).collect()
}

/// The page with `content` between its marks.
fn page(text: &str, content: &str) -> Result<String> {
    let marked = |mark| format!("has no line `{mark}`");
    let (before, rest) = text.split_once(BEGIN).with_context(|| marked(BEGIN))?;
    let (_, after) = rest.split_once(END).with_context(|| marked(END))?;
    Ok(format!("{before}{BEGIN}\n\n{content}\n{END}{after}"))
}

fn metrics() -> String {
    let mut text = "| family | type | unit | labels | is |\n|---|---|---|---|---|\n".to_owned();
    for Family { name, kind, unit, labels, help } in families::ALL {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(", "));
    }
    text.push_str("\n| label | is |\n|---|---|\n");
    for (label, meaning) in families::LABELS {
        let _ = writeln!(text, "| `{label}` | {meaning} |");
    }
    text
}

fn reasons() -> String {
    let mut text = "| reason | the packet | when | what to do |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let (name, fate) = (reason.name(), reason.fate().name());
        let _ = writeln!(text, "| `{name}` | {fate} | {} | {} |", reason.text(), reason.advice());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_stale_until_it_is_written() {
        let empty = format!("# Page\n\n{BEGIN}\nold\n{END}\n\nMore.\n");
        let faults = stale(|_| Some(&empty));
        assert_eq!(faults.len(), PAGES.len(), "{faults:?}");
        let written: Vec<(&str, String)> =
            PAGES.map(|(path, content)| (path, page(&empty, &content()).unwrap())).into();
        let text =
            |path: &str| written.iter().find(|(of, _)| *of == path).map(|(_, text)| text.as_str());
        assert_eq!(stale(text), []);
        assert!(text(PAGES[0].0).is_some_and(|text| text.ends_with("\n\nMore.\n")));
    }

    #[test]
    fn page_without_marks_is_a_fault() {
        assert_eq!(stale(|_| Some("# Page\n")).len(), PAGES.len());
        assert_eq!(stale(|_| None).len(), PAGES.len());
    }

    #[test]
    fn every_reason_and_every_family_has_a_line_of_cells() {
        let lines =
            |text: String, mark: &str| text.lines().filter(|line| line.starts_with(mark)).count();
        assert_eq!(lines(reasons(), "| `"), Reason::ALL.len());
        assert_eq!(lines(metrics(), "| `balancer_"), families::ALL.len());
        for line in reasons().lines().chain(metrics().lines()).filter(|line| !line.is_empty()) {
            assert!(line.starts_with('|') && line.ends_with('|'), "{line}");
        }
    }
}
