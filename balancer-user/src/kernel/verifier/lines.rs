//! Source lines of instructions, from the object's line info (`.BTF.ext`; the kernel's
//! Documentation/bpf/btf.rst, 4.2).
//!
//! The verifier's log has them only from Linux 6.8, and where source text is not part of the
//! object, older kernels print nothing in their place. Here they are the same on every kernel.

use std::{collections::HashSet, fmt};

use aya_obj::{Object, generated::bpf_line_info};

/// What `build/object.rs` puts in the place of the workspace's directory.
const WORKSPACE: &str = "/balancer/";

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// Path inside the workspace; of code that came from elsewhere (`core`, a crate), as the
    /// object has it.
    pub file: String,
    /// Number of the line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where an instruction comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The line that was compiled to it.
    pub line: SourceLine,
    /// Where that line is not of this project: the last line of this project before it, among
    /// the instructions of the same function.
    pub after: Option<SourceLine>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        match &self.after {
            Some(ours) => write!(f, ", which follows {ours}"),
            None => Ok(()),
        }
    }
}

/// The origin of instruction `number` of `program`, counted as the kernel counts it: functions
/// that the program calls come behind it, in the order in which the loader appends them.
/// `None` where the object has no line for it.
pub(super) fn origin(object: &[u8], program: &str, number: u32) -> Option<Origin> {
    let mut object = Object::parse(object).ok()?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).ok()?;
    let strings = Strings::of(&object)?;
    let function = object.functions.get(&object.programs.get(program)?.function_key())?;
    if number as usize >= function.instructions.len() {
        return None;
    }
    let start = function
        .func_info
        .func_info
        .iter()
        .map(|info| info.insn_off)
        .filter(|start| *start <= number)
        .max()?;
    let mut before: Vec<&bpf_line_info> = function
        .line_info
        .line_info
        .iter()
        .filter(|info| (start..=number).contains(&info.insn_off))
        .collect();
    before.sort_by_key(|info| info.insn_off);
    let mut lines = before.iter().rev().filter_map(|info| strings.line(info));
    let (line, is_ours) = lines.next()?;
    let after = if is_ours { None } else { lines.find(|(_, ours)| *ours).map(|(line, _)| line) };
    Some(Origin { line, after })
}

/// The object's string table.
struct Strings(Vec<u8>);

impl Strings {
    /// Cuts it out of the BTF data (the same page, 2.2: header length at byte 4, offset behind
    /// the header at 16, length at 20).
    fn of(object: &Object) -> Option<Self> {
        let btf = object.btf.as_ref()?.to_bytes();
        // aya writes and reads the header in the order of this machine.
        let number = |at: usize| {
            let bytes = btf.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_ne_bytes(bytes)).ok()
        };
        let begin = number(4)? + number(16)?;
        Some(Self(btf.get(begin..begin + number(20)?)?.to_vec()))
    }

    /// The line of an entry, and whether it is of this project; `None` for what the compiler
    /// made without a line.
    fn line(&self, info: &bpf_line_info) -> Option<(SourceLine, bool)> {
        // The upper 22 bits; the rest is the column.
        let line = info.line_col >> 10;
        let tail = self.0.get(usize::try_from(info.file_name_off).ok()?..)?;
        let end = tail.iter().position(|byte| *byte == 0)?;
        let path = String::from_utf8_lossy(&tail[..end]);
        if line == 0 || path.is_empty() {
            return None;
        }
        let ours = path.strip_prefix(WORKSPACE);
        Some((SourceLine { file: ours.unwrap_or(&path).to_owned(), line }, ours.is_some()))
    }
}
