//! Lines and documents of a text, before anything is parsed.
//!
//! A text is split into documents first, so that one broken document does not hide the findings
//! of the others. That needs no parser: a line that begins with `---` or `...` ends a document
//! wherever it stands, inside block and quoted scalars too (YAML 1.2.2, 9.1.2 and rule 206).

/// The lines of a text without their breaks: LF, CR LF or CR (YAML 1.2.2, 5.4).
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.find(['\n', '\r']) {
            Some(end) => {
                let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = Some(&text[end + width..]);
                Some(&text[..end])
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// Splits a text at its document markers: each part with the number of its first line, from 1. A
/// part that is nothing is left out.
pub(super) fn chunks(text: &str) -> Vec<(&str, u32)> {
    let mut chunks = Vec::new();
    let (mut begin, mut begin_line) = (0, 1);
    // Whether the part has had its `---`, and whether it has content. Directives and comments
    // before the first `---` belong to the document that it opens.
    let (mut opened, mut content) = (false, false);
    let empty = |part: &str| {
        lines(part).all(|line| {
            let line = if is_marker(line, "---") { line[3..].trim() } else { line.trim() };
            line.is_empty() || line.starts_with('#')
        })
    };
    for (number, line) in (1..).zip(lines(text)) {
        let offset = line.as_ptr() as usize - text.as_ptr() as usize;
        if is_marker(line, "---") {
            if opened || content {
                chunks.push((&text[begin..offset], begin_line));
                (begin, begin_line) = (offset, number);
            }
            (opened, content) = (true, false);
        } else if is_marker(line, "...") {
            let end = offset + line.len();
            chunks.push((&text[begin..end], begin_line));
            (begin, begin_line) = (end + break_width(&text[end..]), number + 1);
            (opened, content) = (false, false);
        } else if !(line.trim().is_empty()
            || line.trim_start().starts_with('#')
            || (!content && line.starts_with('%')))
        {
            content = true;
        }
    }
    chunks.push((&text[begin..], begin_line));
    // Most of what is between markers in generated files is nothing: no parser is needed for it.
    chunks.retain(|(part, _)| !empty(part));
    chunks.into_iter().map(without_marker).collect()
}

/// Before a letter a marker says nothing that its place does not say: without it, the first
/// document of a text is the same one below another one. (Before a `%` it says that no directive
/// follows.)
fn without_marker((part, line): (&str, u32)) -> (&str, u32) {
    let content = part
        .strip_prefix("---\n")
        .filter(|content| content.starts_with(|first: char| first.is_ascii_alphabetic()));
    content.map_or((part, line), |content| (content, line + 1))
}

fn break_width(rest: &str) -> usize {
    match rest.as_bytes() {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}
