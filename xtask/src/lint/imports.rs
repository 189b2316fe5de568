//! Which room may know what (ARCHITECTURE.md, "Rooms"). Data flows one way: policy → resolve →
//! compile → kernel; no room reaches back, and the pure ones reach nothing that could make the
//! same input give another output.

use super::{Finding, source::Source};

/// What makes a function impure, or belongs to one room only.
const IMPURE: &[&str] = &[
    "aya",
    "libc",
    "nix",
    "rand",
    "rtnetlink",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// A part of the tree and what it never names.
struct Room {
    /// Prefix of its files.
    files: &'static str,
    /// Crates and paths, as written.
    never: &'static [&'static str],
    /// Rooms of `balancer_user`, reached by `crate::`, `super::` or the crate's name.
    never_rooms: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        files: "balancer-user/src/policy",
        never: IMPURE,
        never_rooms: &[
            "resolve", "compile", "kernel", "node", "agent", "explain", "store", "settings",
            "proxy", "cli",
        ],
    },
    Room {
        files: "balancer-user/src/resolve",
        never: IMPURE,
        never_rooms: &[
            "compile", "kernel", "node", "agent", "explain", "store", "settings", "proxy", "cli",
        ],
    },
    Room {
        files: "balancer-user/src/compile",
        never: IMPURE,
        never_rooms: &["kernel", "node", "agent", "explain", "store", "settings", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/explain",
        never: IMPURE,
        never_rooms: &["kernel", "node", "agent", "store", "settings", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/http",
        never: IMPURE,
        never_rooms: &[
            "resolve", "compile", "kernel", "node", "agent", "explain", "plan", "metrics", "store",
            "settings", "proxy", "cli",
        ],
    },
    Room {
        files: "balancer-user/src/proxy",
        never: &["aya", "clap", "netlink_sys", "saphyr_parser", "serde_yaml"],
        never_rooms: &["kernel", "node", "agent", "explain", "plan", "store", "settings", "cli"],
    },
    Room {
        files: "balancer-user/src/store",
        never: &["aya"],
        never_rooms: &["kernel", "node", "agent", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/plan",
        never: IMPURE,
        never_rooms: &["kernel", "node", "agent", "explain", "store", "settings", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/metrics",
        never: &["aya"],
        never_rooms: &["explain", "store", "settings", "node", "agent", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/kernel",
        never: &["saphyr_parser", "serde_yaml"],
        never_rooms: &["policy", "explain", "store", "node", "agent", "proxy", "cli"],
    },
    Room {
        files: "balancer-user/src/settings",
        never: &["aya"],
        never_rooms: &["kernel", "node", "agent", "cli"],
    },
    Room {
        files: "balancer-user/src/node",
        never: &["aya", "clap", "std::thread", "tokio"],
        never_rooms: &["explain", "agent", "proxy", "cli"],
    },
    Room { files: "balancer-user/src/agent", never: &["aya", "clap"], never_rooms: &["cli"] },
    Room { files: "balancer-user/src/cli", never: &["aya"], never_rooms: &[] },
    Room { files: "balancer-user/src/main.rs", never: &["aya"], never_rooms: &[] },
    // The library of the eBPF package is tested on the host; only its binary knows aya-ebpf.
    Room {
        files: "balancer-ebpf/src",
        never: &["aya", "aya_ebpf", "std", "alloc"],
        never_rooms: &[],
    },
];

/// Files that may name what their room may not, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Reads the files that were named on the command line; everything after it is pure.
    ("balancer-user/src/policy/input.rs", "std::fs"),
    // The error number of a symlink loop.
    ("balancer-user/src/policy/input.rs", "libc"),
    // Scoped threads that each read some of the documents: what they give depends on no order.
    ("balancer-user/src/policy/ahead.rs", "std::thread"),
    ("balancer-ebpf/src/bin/", "aya_ebpf"),
];

/// The crate that reads YAML. One file names it, so that another reader is one file's change.
const YAML_READER: &str = "saphyr_parser";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut yaml_readers = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust() && !s.is_test()) {
        let room = ROOMS.iter().find(|room| source.path.starts_with(room.files));
        for (line, path) in source.paths() {
            if begins_with(&path, YAML_READER) && !yaml_readers.contains(&&source.path) {
                yaml_readers.push(&source.path);
            }
            let Some(room) = room else { continue };
            if let Some(what) = forbidden(room, &source.path, &path) {
                let message = format!("{} must not know {what} (`{path}`)", room.files);
                findings.push(Finding { path: source.path.clone(), line, message });
            }
        }
    }
    for path in yaml_readers.iter().skip(1) {
        let message = format!("{} already names {YAML_READER}; one file does", yaml_readers[0]);
        findings.push(Finding { path: (*path).clone(), line: 0, message });
    }
    findings
}

fn forbidden(room: &Room, file: &str, path: &str) -> Option<String> {
    let excepted =
        |what: &str| EXCEPTIONS.iter().any(|(files, may)| file.starts_with(files) && *may == what);
    if let Some(what) = room.never.iter().find(|what| begins_with(path, what)) {
        return (!excepted(what)).then(|| (*what).to_owned());
    }
    let own = |segment: &str| matches!(segment, "crate" | "super" | "self" | "balancer_user");
    let mut segments = path.split("::").peekable();
    segments.next_if(|first| own(first))?;
    let target = segments.find(|segment| !own(segment))?;
    room.never_rooms.contains(&target).then(|| format!("the room `{target}`"))
}

/// Whether `path` is `start` or something below it.
fn begins_with(path: &str, start: &str) -> bool {
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.into(), text: text.into() };
        check(&[source]).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn pure_rooms_know_neither_the_clock_nor_the_kernel() {
        for text in [
            "use std::{path::Path, time::Instant};",
            "use aya::Ebpf;",
            "let t = std::time::SystemTime::now();",
            "use crate::kernel::Datapath;",
            "use super::super::kernel;",
            "use tokio::fs;",
        ] {
            assert_eq!(findings("balancer-user/src/compile/a.rs", text).len(), 1, "{text}");
        }
        let fine = "use std::{collections::BTreeMap, time::Duration};\nuse crate::resolve::Route;";
        assert_eq!(findings("balancer-user/src/compile/a.rs", fine), Vec::<String>::new());
    }

    #[test]
    fn only_kernel_names_aya_and_only_input_reads_files() {
        assert_eq!(findings("balancer-user/src/cli/load.rs", "use aya::Ebpf;").len(), 1);
        assert_eq!(findings("balancer-user/src/kernel/load.rs", "use aya::Ebpf;").len(), 0);
        assert_eq!(findings("balancer-user/src/policy/input.rs", "use std::fs;").len(), 0);
        assert_eq!(findings("balancer-user/src/policy/read.rs", "use std::fs;").len(), 1);
    }

    #[test]
    fn one_file_names_the_yaml_reader() {
        let source =
            |path: &str| Source { path: path.into(), text: "use saphyr_parser::Parser;".into() };
        let one = source("balancer-user/src/policy/yaml.rs");
        let two = source("balancer-user/src/policy/read.rs");
        assert!(check(std::slice::from_ref(&one)).is_empty());
        assert_eq!(check(&[one, two]).len(), 1);
    }
}
