//! What `cargo xtask bpf --stats` says of a program on a kernel, and the table of it in
//! `docs/datapath.md`, with which new figures are compared.

use std::{cmp::Ordering, fmt};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Where the table begins and ends in the page.
const BEGIN: &str = "<!-- `cargo xtask bpf --stats --bless` writes this table -->";
const END: &str = "<!-- end of that table -->";
const HEADER: &str = "| kernel | program | instructions | verified instructions | stack | map memory \
     | CPUs |\n|---|---|--:|--:|--:|--:|--:|\n";
/// Parts of the committed figure by which a new one may differ unsaid.
const TOLERANCE: f64 = 0.1;

/// A line of the program `stats`, and of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Series (`6.12`); the program says the whole release.
    #[serde(deserialize_with = "series")]
    kernel: String,
    program: String,
    instructions: u64,
    verified: u64,
    /// Bytes.
    stack: u64,
    /// Bytes; of the table, whole KiB.
    map_memory: u64,
    cpus: u64,
}

/// The first two numbers of a kernel's release.
fn series<'de, D: serde::Deserializer<'de>>(release: D) -> Result<String, D::Error> {
    let release = String::deserialize(release)?;
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if !major.is_empty() && !minor.is_empty() => {
            Ok(format!("{major}.{minor}"))
        }
        _ => Err(serde::de::Error::custom(format!("{release:?} is no release of a kernel"))),
    }
}

impl Row {
    /// Programs of one kernel lie together, kernels in order of age.
    fn order(&self, other: &Self) -> Ordering {
        let age = |row: &Self| {
            let numbers = row.kernel.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
            numbers.collect::<Vec<_>>()
        };
        age(self).cmp(&age(other)).then_with(|| self.program.cmp(&other.program))
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.kernel, &self.program) == (&other.kernel, &other.program)
    }

    fn cells(&self) -> [String; 7] {
        [
            self.kernel.clone(),
            self.program.clone(),
            grouped(self.instructions),
            grouped(self.verified),
            format!("{} B", grouped(self.stack)),
            format!("{} KiB", grouped(self.map_memory.div_ceil(1024))),
            self.cpus.to_string(),
        ]
    }

    fn from_cells(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [kernel, program, instructions, verified, stack, map_memory, cpus] = *cells else {
            return None;
        };
        let number = |cell: &str| cell.replace(',', "").parse::<u64>().ok();
        Some(Self {
            kernel: kernel.to_owned(),
            program: program.trim_matches('`').to_owned(),
            instructions: number(instructions)?,
            verified: number(verified)?,
            stack: number(stack.strip_suffix(" B")?)?,
            map_memory: number(map_memory.strip_suffix(" KiB")?)? * 1024,
            cpus: number(cpus)?,
        })
    }
}

/// Reads what the program `stats` printed. Lines of others (a guest's kernel speaks too) are
/// passed over; that a program is missing is not.
///
/// # Errors
/// No figures, or a line of figures that is not understood.
pub(crate) fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in lines {
        let line = line.trim();
        if line.starts_with('{') {
            let row = serde_json::from_str(line);
            rows.push(row.with_context(|| format!("these are no figures of a program: {line}"))?);
        }
    }
    ensure!(!rows.is_empty(), "the program `stats` said nothing about any program");
    rows.sort_by(Row::order);
    Ok(rows)
}

/// A number with a comma at every third digit.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The table for a terminal.
pub(crate) fn aligned(rows: &[Row]) -> String {
    let heads = ["kernel", "program", "instructions", "verified", "stack", "map memory", "CPUs"];
    let cells: Vec<_> =
        std::iter::once(heads.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| cells.iter().map(|c| c[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: &[String; 7]| {
        let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

/// The page around the table, and what the table says.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    before: &'a str,
    rows: Vec<Row>,
    after: &'a str,
}

impl<'a> Page<'a> {
    /// Finds the table in `text`.
    ///
    /// # Errors
    /// A marker is missing, or a row is not understood.
    pub(crate) fn read(text: &'a str) -> Result<Self> {
        let marked = |marker: &str| format!("the page has no line `{marker}`: put it back");
        let (before, rest) = text.split_once(BEGIN).with_context(|| marked(BEGIN))?;
        let (table, after) = rest.split_once(END).with_context(|| marked(END))?;
        let lines = table.lines().filter(|line| !line.trim().is_empty());
        let rows = lines
            .skip_while(|line| !line.starts_with("|--"))
            .skip(1)
            .map(|line| Row::from_cells(line).with_context(|| format!("no row of figures: {line}")))
            .collect::<Result<_>>()?;
        Ok(Self { before, rows, after })
    }

    /// The page with `rows` in place of those of the same kernels.
    pub(crate) fn with(&self, rows: &[Row]) -> String {
        let others =
            self.rows.iter().filter(|old| !rows.iter().any(|new| new.kernel == old.kernel));
        let mut all: Vec<&Row> = others.chain(rows).collect();
        all.sort_by(|a, b| a.order(b));
        let lines: String = all
            .iter()
            .map(|row| {
                let [kernel, program, rest @ ..] = row.cells();
                format!("| {kernel} | `{program}` | {} |\n", rest.join(" | "))
            })
            .collect();
        format!("{}{BEGIN}\n\n{HEADER}{lines}\n{END}{}", self.before, self.after)
    }

    /// What a reader should know of the difference between the table and `rows`.
    pub(crate) fn changes(&self, rows: &[Row]) -> Vec<Change> {
        rows.iter().flat_map(|row| self.changes_of(row)).collect()
    }

    fn changes_of(&self, new: &Row) -> Vec<Change> {
        let change =
            |what| Change { kernel: new.kernel.clone(), program: new.program.clone(), what };
        let Some(old) = self.rows.iter().find(|old| old.is_of(new)) else {
            return vec![change(What::Unknown)];
        };
        let mut pairs = vec![
            ("instructions", "", old.instructions, new.instructions),
            ("verified instructions", "", old.verified, new.verified),
            ("stack", " B", old.stack, new.stack),
        ];
        let mut changes = Vec::new();
        if old.cpus == new.cpus {
            let kib = |bytes: u64| bytes.div_ceil(1024);
            pairs.push(("map memory", " KiB", kib(old.map_memory), kib(new.map_memory)));
        } else {
            changes.push(change(What::OtherCpus { before: old.cpus, now: new.cpus }));
        }
        changes.extend(
            pairs
                .into_iter()
                .filter(|(.., before, now)| {
                    before.abs_diff(*now) as f64 > TOLERANCE * *before as f64
                })
                .map(|(figure, unit, before, now)| {
                    change(What::Figure { figure, unit, before, now })
                }),
        );
        changes
    }
}

/// One difference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    kernel: String,
    program: String,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// A figure differs by more than the tolerance.
    Figure { figure: &'static str, unit: &'static str, before: u64, now: u64 },
    /// Maps have an element for each CPU: memory cannot be compared.
    OtherCpus { before: u64, now: u64 },
    /// The table has no such row.
    Unknown,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: ", self.program, self.kernel)?;
        match self.what {
            What::Figure { figure, unit, before, now } => {
                write!(f, "{figure} {} → {}{unit}", grouped(before), grouped(now))?;
                if before > 0 {
                    let percent = (now as f64 - before as f64) / before as f64 * 100.0;
                    write!(f, " ({percent:+.1} %)")?;
                }
                Ok(())
            }
            What::OtherCpus { before, now } => write!(
                f,
                "map memory not compared, the table's is for {before} CPUs and this is for {now}"
            ),
            What::Unknown => write!(f, "not compared, the table has no such row"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"program":"balancer_in","kernel":"6.1.0-56-cloud-amd64","cpus":2,"instructions":10913,"verified":120000,"stack":480,"peak_states":2823,"map_memory":196829160,"maps":{"EPOCH":4096}}"#;

    fn rows() -> Vec<Row> {
        read(["[    1.2] a kernel talks", LINE, ""]).expect("figures")
    }

    fn page() -> String {
        let empty = format!("# Page\n\n{BEGIN}\n{END}\n\n## Next\n");
        Page::read(&empty).expect("both markers").with(&rows())
    }

    #[test]
    fn figures_of_a_guest_are_read_between_other_lines() {
        let rows = rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].kernel.as_str(), rows[0].verified), ("6.1", 120_000));
    }

    #[test]
    fn silence_and_cut_lines_are_errors() {
        assert!(read(["hello"]).is_err());
        let error = read([&LINE[..40]]).expect_err("half a line");
        assert!(format!("{error:#}").contains("no figures of a program"), "{error:#}");
        assert!(read([LINE.replace("6.1.0-56-cloud-amd64", "six").as_str()]).is_err());
    }

    #[test]
    fn a_written_table_reads_as_it_was() {
        let text = page();
        let page = Page::read(&text).expect("a table");
        assert_eq!(page.with(&rows()), text);
        assert!(page.changes(&rows()).is_empty(), "{:?}", page.changes(&rows()));
        assert!(
            text.contains("| 6.1 | `balancer_in` | 10,913 | 120,000 | 480 B | 192,216 KiB | 2 |")
        );
        assert!(text.starts_with("# Page\n\n") && text.ends_with("\n\n## Next\n"), "{text}");
    }

    #[test]
    fn rows_of_other_kernels_stay_and_kernels_are_in_order_of_age() {
        let text = page();
        let newer = LINE.replace("6.1.0-56-cloud-amd64", "6.12.3+deb12");
        let newest = LINE.replace("6.1.0-56-cloud-amd64", "6.9.1");
        let text =
            Page::read(&text).expect("a table").with(&read([&*newer, &*newest]).expect("rows"));
        let kernels: Vec<_> =
            Page::read(&text).expect("a table").rows.into_iter().map(|row| row.kernel).collect();
        assert_eq!(kernels, ["6.1", "6.9", "6.12"]);
    }

    #[test]
    fn a_change_of_more_than_a_tenth_is_said_either_way() {
        let text = page();
        let page = Page::read(&text).expect("a table");
        let changes = |from: &str, to: &str| {
            let rows = read([LINE.replace(from, to).as_str()]).expect("figures");
            page.changes(&rows).iter().map(Change::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            changes("120000", "140000"),
            ["balancer_in on 6.1: verified instructions 120,000 → 140,000 (+16.7 %)"]
        );
        assert_eq!(
            changes("\"stack\":480", "\"stack\":400"),
            ["balancer_in on 6.1: stack 480 → 400 B (-16.7 %)"]
        );
        assert!(changes("120000", "132000").is_empty());
        assert_eq!(changes("120000", "132001").len(), 1);
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let text = page();
        let page = Page::read(&text).expect("a table");
        let said = |line: String| {
            let rows = read([line.as_str()]).expect("figures");
            page.changes(&rows).iter().map(Change::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            said(LINE.replace("6.1.0-56-cloud-amd64", "6.18.44")),
            ["balancer_in on 6.18: not compared, the table has no such row"]
        );
        let other = LINE.replace("\"cpus\":2", "\"cpus\":8").replace("196829160", "900000000");
        assert_eq!(
            said(other),
            [
                "balancer_in on 6.1: map memory not compared, the table's is for 2 CPUs and this is for 8"
            ]
        );
    }

    #[test]
    fn a_page_without_its_markers_says_which() {
        let error = Page::read("# Page\n").expect_err("no marker");
        assert!(error.to_string().contains("--stats --bless"), "{error}");
        let broken = page().replace("10,913", "many");
        assert!(Page::read(&broken).is_err());
    }

    #[test]
    fn columns_line_up() {
        let table = aligned(&rows());
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].chars().count(), lines[1].chars().count(), "{table}");
    }
}
