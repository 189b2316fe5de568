//! Data on standard output, talk on standard error.
//!
//! A row is a struct; its text form is a table whose heads are the field names that JSON and
//! YAML have. Nothing here panics when the reader goes away: `balancer show flows | head` is
//! an ordinary use.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use serde::Serialize;
use serde_json::Value;

use super::{args::Form, failure::Failure};

/// Prints one value: for people as `text` makes it, else the value.
pub(crate) fn value<T: Serialize>(
    form: Form,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let printed = match form {
        Form::Text => text(value),
        Form::Json => serde_json::to_string_pretty(value)
            .map(|json| json + "\n")
            .map_err(|error| Failure::system(error, "cannot print as JSON"))?,
        // By way of JSON, so that both have the same form: of an enum YAML would make a tag.
        Form::Yaml => serde_json::to_value(value)
            .map_err(anyhow::Error::new)
            .and_then(|json| Ok(serde_yaml::to_string(&json)?))
            .map_err(|error| Failure::system(error, "cannot print as YAML"))?,
        Form::Hosts => return Err(hosts_refused()),
    };
    data(&printed)
}

/// Prints a list of objects: a table, or as it is. `nothing` is said where it is empty.
pub(crate) fn rows<T: Serialize + ?Sized>(
    form: Form,
    rows: &T,
    nothing: &str,
) -> Result<(), Failure> {
    let rows = serde_json::to_value(rows)
        .map_err(|error| Failure::system(error, "cannot print the rows"))?;
    if form == Form::Text && rows.as_array().is_some_and(Vec::is_empty) {
        say(nothing);
        return Ok(());
    }
    value(form, &rows, table)
}

/// `-o hosts` where there is no such form.
pub(crate) fn hosts_refused() -> Failure {
    Failure::usage("`-o hosts` is a form of `show vips` only").hint("balancer show vips -o hosts")
}

/// Writes to standard output. A reader that has gone is no failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    heard(text).map(drop)
}

/// Writes to standard output; whether somebody still reads.
pub(crate) fn heard(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::system(error, "cannot write to standard output")),
    }
}

/// Writes a line to standard error.
pub(crate) fn say(line: &str) {
    // There is no place left to report that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Colours on standard error: a terminal, and `NO_COLOR` (<https://no-color.org>) unset or empty.
pub(crate) fn stderr_colours() -> bool {
    no_color_unset() && io::stderr().is_terminal()
}

/// Colours on standard output.
pub(crate) fn stdout_colours() -> bool {
    no_color_unset() && io::stdout().is_terminal()
}

fn no_color_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A number and its noun: `1 VIP`, `3 VIPs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A list of objects as a table. Columns of numbers are aligned to the right.
pub(crate) fn table(rows: &Value) -> String {
    let rows: Vec<&serde_json::Map<String, Value>> =
        rows.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let Some(first) = rows.first() else { return String::new() };
    let mut lines: Vec<Vec<String>> =
        vec![first.keys().map(|key| key.to_uppercase().replace('_', " ")).collect()];
    lines.extend(rows.iter().map(|row| row.values().map(cell).collect()));
    let numeric: Vec<bool> = first
        .keys()
        .map(|key| {
            rows.iter().all(|row| matches!(row.get(key), Some(Value::Number(_) | Value::Null)))
                && rows.iter().any(|row| matches!(row.get(key), Some(Value::Number(_))))
        })
        .collect();
    columns(&lines, &numeric)
}

/// Lines of cells, padded to the widest of each column, two spaces between columns.
pub(crate) fn columns(lines: &[Vec<String>], right: &[bool]) -> String {
    let mut widths = vec![0; lines.iter().map(Vec::len).max().unwrap_or(0)];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut printed = String::new();
        for (at, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            let gap = if at == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = if right.get(at).copied().unwrap_or(false) {
                write!(printed, "{gap}{pad}{cell}")
            } else {
                write!(printed, "{gap}{cell}{pad}")
            };
        }
        text.push_str(printed.trim_end());
        text.push('\n');
    }
    text
}

/// A value in one cell: lists with commas, maps as `k=v`, nothing as `-`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => share(float),
            _ => number.to_string(),
        },
        Value::String(text) => printable(text),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{}={}", printable(key), cell(value)))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// A share of the whole with four decimals at most.
pub(crate) fn share(share: f64) -> String {
    let text = format!("{share:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A unit variant as it stands in JSON.
pub(crate) fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        // Serializing these enums cannot fail, and gives a string.
        _ => String::new(),
    }
}

/// Control characters escaped: names come from files, and a terminal would obey them.
pub(crate) fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        return text.chars().flat_map(char::escape_default).collect();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_aligns_numbers_right_and_leaves_no_blanks_at_line_ends() {
        let rows = json!([
            {"vip": "240.0.0.3:6379", "share": 0.9, "live_connections": 7, "tags": {"v": "1"}},
            {"vip": "[fd00::1]:80", "share": 0.125, "live_connections": 1234, "tags": {}},
        ]);
        assert_eq!(
            table(&rows),
            "VIP             SHARE  LIVE CONNECTIONS  TAGS\n\
             240.0.0.3:6379    0.9                 7  v=1\n\
             [fd00::1]:80    0.125              1234  -\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(table(&json!([{"a": "x\u{1b}[31m"}])), "A\nx\\u{1b}[31m\n");
    }

    #[test]
    fn shares_have_four_decimals_at_most() {
        assert_eq!(
            [share(0.9), share(1.0), share(1.0 / 3.0), share(0.0)],
            ["0.9", "1", "0.3333", "0"]
        );
    }
}
