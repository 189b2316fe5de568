//! What is needed, for what, and whether it is there. The list itself is in
//! `tests/vm/provision.sh`, so that a new machine without this program reads the same one.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// The script with the list, which also installs.
pub(crate) const SCRIPT: &str = "tests/vm/provision.sh";

/// What something is needed for. Each verb asks for the groups that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Compiling the programs.
    Build,
    /// Namespaces for tests and demo.
    Run,
    /// Tests in guests.
    Vm,
    /// Tests of other BPF loaders.
    Loaders,
    /// The test of what the agent shows to Prometheus.
    Metrics,
    /// What `bench l4` and `l7` measure balancer beside.
    Bench,
    /// The test of QUIC through UDP.
    Quic,
    /// What our proxy is compared with.
    Proxies,
    /// Fuzzing.
    Fuzz,
    /// The test of the provision script.
    Provision,
    /// What a machine that runs this program has already; for [`SCRIPT`] alone.
    Bare,
}

impl Group {
    /// What `cargo xtask setup` and CI want: everything that the default suites use.
    pub(crate) const ALL: &[Self] = &[
        Self::Build,
        Self::Run,
        Self::Vm,
        Self::Loaders,
        Self::Metrics,
        Self::Quic,
        Self::Proxies,
    ];

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "build" => Self::Build,
            "run" => Self::Run,
            "vm" => Self::Vm,
            "loaders" => Self::Loaders,
            "metrics" => Self::Metrics,
            "bench" => Self::Bench,
            "quic" => Self::Quic,
            "proxies" => Self::Proxies,
            "fuzz" => Self::Fuzz,
            "provision" => Self::Provision,
            "bare" => Self::Bare,
            _ => return None,
        })
    }
}

/// How one sees that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A Rust toolchain for BPF.
    Toolchain,
    /// A program of this name.
    Program(String),
    /// A header that the C compiler finds.
    Header(String),
    /// A file, by its whole path.
    Path(String),
    /// Not at all.
    Never,
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) group: Group,
    /// Debian's name.
    pub(super) package: String,
    pub(super) look: Look,
    pub(super) why: String,
}

/// The needs of these groups, in the list's order.
pub(super) fn of(groups: &[Group]) -> Result<Vec<Need>> {
    Ok(list()?.into_iter().filter(|need| groups.contains(&need.group)).collect())
}

fn list() -> Result<Vec<Need>> {
    let text = run::ask(Command::new("bash").arg(run::root().join(SCRIPT)).arg("--list"))?;
    text.lines()
        .map(|line| need(line).with_context(|| format!("{SCRIPT} --list printed `{line}`")))
        .collect()
}

/// Reads a line: group, package, look and reason, with spaces between them.
fn need(line: &str) -> Result<Need> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        word
    };
    let (group, package, look) = (word(), word(), word());
    let group = Group::named(group).with_context(|| format!("`{group}` is no group"))?;
    let look = match look.split_once(':') {
        None if look == "toolchain" => Look::Toolchain,
        None if look == "-" => Look::Never,
        Some(("program", name)) => Look::Program(name.to_owned()),
        Some(("header", name)) => Look::Header(name.to_owned()),
        Some(("path", file)) => Look::Path(file.to_owned()),
        _ => bail!("`{look}` is no way to look for something"),
    };
    if rest.is_empty() {
        bail!("it gives no reason");
    }
    Ok(Need { group, package: package.to_owned(), look, why: rest.to_owned() })
}

/// Where a program is, else where it was looked for.
pub(super) fn program(name: &str) -> Result<String, String> {
    match run::program(name) {
        Some(path) => Ok(path.display().to_string()),
        None => Err("neither on PATH nor in /usr/sbin".into()),
    }
}

/// Says that the file is there, else why it is not taken for there.
pub(super) fn path(file: &str) -> Result<String, String> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_file() => Ok("it is there".into()),
        Ok(_) => Err("something else than a file has that name".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Says that the header is there, else why not. Directories differ between distributions, so the
/// compiler that will want it is asked.
pub(super) fn header(name: &str) -> Result<String, String> {
    let mut compiler = Command::new("cc");
    compiler.args(["-E", "-x", "c", "-include", name, "/dev/null", "-o", "/dev/null"]);
    let output = compiler.output().map_err(|e| format!("no C compiler to ask for it: cc: {e}"))?;
    if output.status.success() {
        return Ok("the C compiler finds it".into());
    }
    // The first line is the fault; what follows quotes the command line.
    let words = String::from_utf8_lossy(&output.stderr);
    Err(words.lines().next().unwrap_or("cc failed without a word").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lists_needs_of_every_group() {
        let needs = list().unwrap();
        let others = [Group::Bench, Group::Fuzz, Group::Provision, Group::Bare];
        for group in Group::ALL.iter().chain(&others) {
            assert!(needs.iter().any(|need| need.group == *group), "nothing for {group:?}");
        }
        // Setup looks for what it installs; only a bare machine takes packages unseen.
        for Need { group, package, look, .. } in &needs {
            assert_eq!(*look == Look::Never, *group == Group::Bare, "{package}");
        }
    }

    #[test]
    fn groups_bring_their_own_packages_only() {
        let packages = |groups: &[Group]| -> Vec<String> {
            of(groups).unwrap().into_iter().map(|need| need.package).collect()
        };
        let demo = packages(&[Group::Build, Group::Run]);
        assert!(demo.contains(&"rustc-web".into()) && demo.contains(&"iproute2".into()));
        assert!(!demo.contains(&"qemu-system-x86".into()), "{demo:?}");
        let all = packages(Group::ALL);
        assert!(all.contains(&"qemu-system-x86".into()) && all.contains(&"libelf-dev".into()));
        assert!(!all.contains(&"debootstrap".into()), "{all:?}");
        let peers = packages(&[Group::Bench]);
        assert!(peers.contains(&"nftables".into()));
        let proxies = packages(&[Group::Proxies]);
        for service in ["haproxy", "nginx"] {
            assert!(peers.contains(&service.into()), "{peers:?}");
            assert!(proxies.contains(&service.into()), "{proxies:?}");
        }
        assert_eq!(packages(&[Group::Provision]), ["debootstrap"]);
    }

    #[test]
    fn script_wants_the_rust_that_cargo_toml_wants() {
        let script = std::fs::read_to_string(run::root().join(SCRIPT)).unwrap();
        let line = concat!("OLDEST_RUST=", env!("CARGO_PKG_RUST_VERSION"));
        assert!(script.lines().any(|l| l == line), "no line {line}");
    }

    #[test]
    fn script_has_nothing_that_lima_would_expand() {
        let script = std::fs::read_to_string(run::root().join(SCRIPT)).unwrap();
        assert!(!script.contains("{{"), "lima.yaml includes {SCRIPT} as a template");
    }

    #[test]
    fn lines_that_say_nothing_are_refused() {
        let read = need("vm  xz-utils   program:xz  modules are compressed with it").unwrap();
        assert_eq!(read.look, Look::Program("xz".into()));
        assert_eq!(read.why, "modules are compressed with it");
        for (line, fault) in [
            ("vn xz-utils program:xz reason", "`vn` is no group"),
            ("vm xz-utils file:xz reason", "`file:xz` is no way to look for something"),
            ("vm xz-utils program:xz", "it gives no reason"),
        ] {
            assert_eq!(need(line).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn a_file_is_there_or_it_is_said_what_is_instead() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(path(here), Ok("it is there".into()));
        let fault = path(env!("CARGO_MANIFEST_DIR")).unwrap_err();
        assert_eq!(fault, "something else than a file has that name");
        assert!(path("/balancer/has/no/such").unwrap_err().contains("No such file"));
    }

    #[test]
    fn compiler_knows_which_header_is_there() {
        header("stdio.h").unwrap();
        let fault = header("balancer-has-no-such.h").unwrap_err();
        assert!(fault.contains("balancer-has-no-such.h"), "{fault}");
    }
}
