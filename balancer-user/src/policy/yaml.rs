//! YAML (and with it JSON) text into trees that know the position of everything.
//!
//! The only file that names the YAML crate. What it leaves out on purpose: merge keys (`<<`,
//! dropped by YAML 1.2), mappings and lists as keys, tags other than those of the core schema.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as Range, Tag};

use super::{
    Diagnostic, Span,
    text::{chunks, lines},
};

/// Lists and mappings nested deeper than this are refused.
pub const DEPTH_MAX: usize = 100;
/// Most nodes of a document as written: about 200 MB of trees.
pub const NODES_MAX: usize = 2_000_000;
/// Most faults of a document that are reported besides broken syntax.
pub const PROBLEMS_MAX: usize = 1_000;
/// Most nodes that anchors and aliases of a document may add (the "billion laughs").
pub const ALIASED_NODES_MAX: usize = 100_000;

/// A value and where it stands. An absent value (`key:`) stands where its key stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Anything but a list or a mapping.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in written order; every key once.
    Mapping(Vec<Entry>),
}

/// A scalar. Only a plain one can be a number, a boolean or null.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Its text without quotes and escapes.
    pub text: String,
    /// Written without quotes, and not tagged `!!str`.
    pub plain: bool,
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Whether it is an absent value or one of the spellings of null.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::Sequence(_) | Value::Mapping(_) => false,
        }
    }

    /// Whether it is a scalar with this text, quoted or not.
    pub fn is_text(&self, text: &str) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.text == text)
    }

    /// The value of a key, if it is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar(_) | Value::Sequence(_) => None,
        }
    }
}

/// One document. It was read completely if `problems` is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it begins.
    pub span: Span,
    /// The tree, unless its syntax is broken.
    pub root: Option<Node>,
    /// Broken syntax (then the field is empty), duplicate keys and the like.
    pub problems: Vec<Diagnostic>,
}

/// Reads every document of a text that is one of [`Documents::whole`](super::Documents::whole), as
/// its `number`th: spans count lines from the beginning of the text. Empty documents are left out.
pub fn documents(text: &str, number: u32) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    chunks(text)
        .into_iter()
        .filter_map(|(chunk, first_line)| document(chunk, first_line, number))
        .collect()
}

/// Reads a part of a text that has one document at most: see [`chunks`]. `None`: it is empty.
/// `first_line`: what spans have for the first line of it.
pub(super) fn document(chunk: &str, first_line: u32, number: u32) -> Option<Document> {
    let mut builder = Builder {
        lines: lines(chunk).collect(),
        first_line,
        number,
        frames: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        written: 0,
        aliased: 0,
        problems: Vec::new(),
        begins: None,
    };
    // The parser takes NUL for the end of its input.
    let outcome = if let Some((line, column)) = position_of(&builder.lines, '\0') {
        let at = builder.place(line, column, 1);
        Err(stop(at, "a NUL character: this is no text", "name a YAML or JSON file"))
    } else {
        builder.run(chunk)
    };
    let fallback = builder.place(1, 1, 1);
    let mut problems = builder.problems;
    let root = match outcome {
        Ok(()) => builder.root,
        Err(problem) => {
            problems.push(*problem);
            None
        }
    };
    let empty = root.as_ref().is_none_or(Node::is_null);
    if empty && problems.is_empty() {
        return None;
    }
    let span = builder.begins.or_else(|| problems.first().and_then(|p| p.span)).unwrap_or(fallback);
    Some(Document { span, root, problems })
}

fn position_of(lines: &[&str], wanted: char) -> Option<(usize, usize)> {
    lines.iter().enumerate().find_map(|(number, line)| {
        let column = line.chars().position(|c| c == wanted)?;
        Some((number + 1, column + 1))
    })
}

/// What ends the reading of a document.
type Broken = Box<Diagnostic>;

fn stop(at: Span, message: &str, hint: &str) -> Broken {
    Box::new(Diagnostic::error("", message).at(at).hint(hint))
}

/// A list or mapping whose end has not come yet.
struct Frame {
    start: Range,
    anchor: usize,
    size: Size,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// The key whose value comes next.
        key: Option<(String, Span)>,
        /// Where each key stands in `entries`, once there are many. Only looked up.
        index: HashMap<String, usize>,
    },
}

/// How large a tree is.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    depth: usize,
}

/// Mappings with more keys than this are searched by index.
const INDEXED_KEYS: usize = 16;

struct Builder<'t> {
    lines: Vec<&'t str>,
    first_line: u32,
    number: u32,
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, (Node, Size)>,
    written: usize,
    aliased: usize,
    problems: Vec<Diagnostic>,
    begins: Option<Span>,
}

impl Builder<'_> {
    fn run(&mut self, chunk: &str) -> Result<(), Broken> {
        let mut parser = Parser::new_from_str(chunk);
        while let Some(event) = parser.next_event() {
            let (event, range) =
                event.map_err(|error| self.broken(error.marker(), error.info()))?;
            self.event(event, range)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, range: Range) -> Result<(), Broken> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
            Event::Alias(id) => self.alias(id, range),
            Event::Scalar(text, style, anchor, tag) => {
                let string = self.tag(tag.as_deref(), range);
                let plain = style == ScalarStyle::Plain && !string;
                let value = Value::Scalar(Scalar { text: text.into_owned(), plain });
                let node = Node { span: self.span(range), value };
                self.written(range)?;
                self.finish(node, Size { nodes: 1, depth: 0 }, anchor, range)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), range);
                self.open(range, anchor, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), range);
                let index = HashMap::new();
                self.open(range, anchor, Items::Mapping { entries: Vec::new(), key: None, index })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(range),
        }
    }

    fn open(&mut self, start: Range, anchor: usize, items: Items) -> Result<(), Broken> {
        if self.frames.len() >= DEPTH_MAX {
            return Err(self.too_deep(start));
        }
        self.written(start)?;
        self.begins.get_or_insert(self.span(start));
        self.frames.push(Frame { start, anchor, size: Size { nodes: 1, depth: 1 }, items });
        Ok(())
    }

    fn close(&mut self, end: Range) -> Result<(), Broken> {
        let Some(frame) = self.frames.pop() else {
            return Err(self.broken(&end.start, "an end without a beginning"));
        };
        let (value, first) = match frame.items {
            Items::Sequence(items) => {
                let first = items.first().map(|item| item.span);
                (Value::Sequence(items), first)
            }
            Items::Mapping { entries, .. } => {
                let first = entries.first().map(|entry| entry.key_span);
                (Value::Mapping(entries), first)
            }
        };
        // A flow collection on one line is underlined as a whole, any other at its first key.
        let flow = !frame.start.is_empty();
        let span = if flow && frame.start.start.line() == end.end.line() {
            self.span(Range::new(frame.start.start, end.end))
        } else if flow {
            self.span(frame.start)
        } else {
            first.unwrap_or_else(|| self.span(frame.start))
        };
        self.finish(Node { span, value }, frame.size, frame.anchor, frame.start)
    }

    fn alias(&mut self, id: usize, range: Range) -> Result<(), Broken> {
        let Some((node, size)) = self.anchors.get(&id) else {
            let message = "an alias inside the value that it stands for";
            return Err(stop(self.span(range), message, "write the value out"));
        };
        let (mut node, size) = (node.clone(), *size);
        if self.frames.len() + size.depth > DEPTH_MAX {
            return Err(self.too_deep(range));
        }
        self.aliased(size.nodes, range)?;
        node.span = self.span(range);
        self.finish(node, size, 0, range)
    }

    /// Puts a complete node where it belongs.
    fn finish(
        &mut self,
        node: Node,
        size: Size,
        anchor: usize,
        range: Range,
    ) -> Result<(), Broken> {
        if anchor != 0 {
            self.aliased(size.nodes, range)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.begins.get_or_insert(node.span);
            self.root = Some(node);
            return Ok(());
        };
        frame.size.nodes += size.nodes;
        frame.size.depth = frame.size.depth.max(1 + size.depth);
        match &mut frame.items {
            Items::Sequence(items) => items.push(node),
            Items::Mapping { key: key @ None, .. } => match node.value {
                Value::Scalar(Scalar { text, plain }) if !(plain && text == "<<") => {
                    *key = Some((text, node.span));
                }
                Value::Scalar(_) => {
                    let hint = "write the fields out; YAML 1.2 has no merge keys";
                    return Err(stop(node.span, "merge keys (`<<`) are not read", hint));
                }
                Value::Sequence(_) | Value::Mapping(_) => {
                    let hint = "quote it if it begins with `[`, `{` or `?`";
                    return Err(stop(node.span, "a key must be a string", hint));
                }
            },
            Items::Mapping { entries, key, index } => {
                if let Some((key, key_span)) = key.take() {
                    let mut value = node;
                    if value.is_null() && range.is_empty() {
                        value.span = key_span;
                    }
                    let first = if entries.len() > INDEXED_KEYS {
                        index.get(&key).copied()
                    } else {
                        entries.iter().position(|entry| entry.key == key)
                    };
                    if let Some(first) = first {
                        let first_span = entries[first].key_span;
                        return self.duplicate(&key, key_span, first_span);
                    } else {
                        let at = entries.len();
                        entries.push(Entry { key, key_span, value });
                        // The index is filled when it is first needed, then kept up.
                        if at == INDEXED_KEYS {
                            *index =
                                (0..).zip(&*entries).map(|(i, e)| (e.key.clone(), i)).collect();
                        } else if at > INDEXED_KEYS {
                            index.insert(entries[at].key.clone(), at);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn duplicate(&mut self, key: &str, here: Span, first: Span) -> Result<(), Broken> {
        if self.problems.len() >= PROBLEMS_MAX {
            let message = format!("more than {PROBLEMS_MAX} faults in one document");
            return Err(stop(here, &message, "is it a policy?"));
        }
        let path = key_path(&self.path(), key);
        self.problems.push(
            Diagnostic::error(path, format!("the key `{key}` stands twice in one mapping"))
                .at(here)
                .related(first, "first here")
                .hint("remove one of them"),
        );
        Ok(())
    }

    /// The path of the innermost open list or mapping, from the document's root.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames[..self.frames.len().saturating_sub(1)] {
            match &frame.items {
                Items::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                Items::Mapping { key, .. } => {
                    let key = key.as_ref().map_or("", |(key, _)| key);
                    path = key_path(&path, key);
                }
            }
        }
        path
    }

    /// Whether the tag makes the scalar a string. Unknown tags are reported.
    fn tag(&mut self, tag: Option<&Tag>, range: Range) -> bool {
        let Some(tag) = tag else { return false };
        if tag.is_yaml_core_schema() {
            match tag.suffix.as_str() {
                "str" => return true,
                "int" | "float" | "bool" | "null" | "seq" | "map" => return false,
                _ => {}
            }
        } else if tag.handle == "!" && tag.suffix.is_empty() || tag.handle.is_empty() {
            return true;
        }
        self.problems.push(
            Diagnostic::error("", format!("the YAML tag `{tag}` is not known"))
                .at(self.span(range))
                .hint("leave it out; quote the value if it is a string"),
        );
        false
    }

    fn written(&mut self, range: Range) -> Result<(), Broken> {
        self.written += 1;
        if self.written > NODES_MAX {
            let message = format!("more than {NODES_MAX} values in one document");
            return Err(stop(self.span(range), &message, "split it into several documents"));
        }
        Ok(())
    }

    fn aliased(&mut self, nodes: usize, range: Range) -> Result<(), Broken> {
        self.aliased += nodes;
        if self.aliased > ALIASED_NODES_MAX {
            let message = format!("aliases expand to more than {ALIASED_NODES_MAX} values");
            let hint = "write the values out instead of nesting anchors";
            return Err(stop(self.span(range), &message, hint));
        }
        Ok(())
    }

    fn too_deep(&self, range: Range) -> Broken {
        let message = format!("lists and mappings nested deeper than {DEPTH_MAX} levels");
        stop(self.span(range), &message, "no policy needs that; is it one?")
    }

    fn broken(&self, marker: &Marker, info: &str) -> Broken {
        let line = marker.line().max(1);
        // The parser reads ahead, and has a bound of its own.
        if info.contains("recursion limit") {
            return self.too_deep(Range::empty(*marker));
        }
        // The parser notices a tab in the indentation late and in many words.
        for number in [line, line + 1] {
            let indentation = self.lines.get(number - 1).map_or("", |line| {
                &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
            });
            if let Some(column) = indentation.find('\t') {
                let at = self.place(number, column + 1, 1);
                return stop(at, "a tab in the indentation", "YAML is indented with spaces only");
            }
        }
        let hint = if info.contains("<document start>") {
            "put a line `---` between documents"
        } else if info.contains("mapping values are not allowed") {
            "check the indentation, and quote values that contain `: `"
        } else if info.contains("unexpected character") {
            "quote values that begin with a special character"
        } else {
            "check the indentation, quotes and brackets here and just above"
        };
        let at = self.place(line, marker.col() + 1, 1);
        stop(at, &format!("cannot be read as YAML: {info}"), hint)
    }

    /// The place of a range: its first line, to the end of that line at most.
    fn span(&self, range: Range) -> Span {
        let (line, column) = (range.start.line().max(1), range.start.col() + 1);
        let len = if range.end.line() == range.start.line() {
            range.end.col().saturating_sub(range.start.col())
        } else {
            let width = self.lines.get(line - 1).map_or(0, |line| line.trim_end().chars().count());
            (width + 1).saturating_sub(column)
        };
        self.place(line, column, len)
    }

    /// Line and column from 1, within this document's part of the text.
    fn place(&self, line: usize, column: usize, len: usize) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            document: self.number,
            line: self.first_line.saturating_add(number(line).saturating_sub(1)),
            column: number(column),
            len: number(len).max(1),
        }
    }
}

/// Appends a key to a field path: `.key`, or `["key"]` where it is no plain word.
pub fn key_path(path: &str, key: &str) -> String {
    let word = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match (word && !key.is_empty(), path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
