//! `cargo xtask setup`: what the build, the tests and the demo need, by groups: a verb that
//! needs no guests installs no qemu.
//!
//! What is there is used; what is missing is installed where that is possible without asking
//! anybody (Debian packages as root on Debian, bpf-linker in the user's cache), with the reason.
//! Where something stays that this cannot install, nothing at all is installed: a list says what
//! is missing and which command installs it.

mod debian;
mod envoy;
mod linker;
pub(crate) mod needs;
#[path = "../../../balancer-user/build/object.rs"]
pub(crate) mod object;
#[path = "../../../balancer-user/build/toolchain.rs"]
mod toolchain;

use std::time::Instant;

use anyhow::Result;

use linker::Plan;
pub(crate) use needs::Group;
use needs::{Look, Need};
pub(crate) use toolchain::CRATE_SOURCES;
use toolchain::Toolchain;
pub(crate) use toolchain::cache;
pub(crate) use toolchain::inner;

/// What the object is compiled for. Every machine that the tests run on is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// How much to say where nothing is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// A line for each thing.
    Full,
    /// Nothing: another verb begins with setup.
    Short,
}

/// Something missing.
struct Missing {
    what: String,
    /// What was looked at.
    detail: String,
    why: String,
    /// Commands that a person can type.
    commands: Vec<String>,
    remedy: Remedy,
}

enum Remedy {
    /// These Debian packages.
    Packages(Vec<String>),
    /// Building bpf-linker.
    Linker(Plan),
    /// Building bpf-linker, once the toolchain is there that it must match.
    LinkerLater,
    /// A person has to.
    None,
}

/// Installs what is missing of `groups`, or lists it and fails.
pub(crate) fn run(talk: Talk, groups: &[Group]) -> Result<()> {
    let begun = Instant::now();
    let needs = needs::of(groups)?;
    let debian = debian::is_debian();
    let may_install = debian && nix::unistd::geteuid().is_root();
    let mut found = Vec::new();
    let mut missing = look(&needs, &mut found, debian);
    if talk == Talk::Full {
        for line in &found {
            println!("have: {line}");
        }
    }
    let possible = |m: &Missing| match m.remedy {
        Remedy::Packages(_) => may_install,
        Remedy::Linker(_) => true,
        Remedy::LinkerLater => may_install,
        Remedy::None => false,
    };
    if !missing.iter().all(possible) {
        return Err(list(&missing, debian));
    }

    let mut packages = Vec::new();
    for Missing { what, why, remedy, .. } in &missing {
        if let Remedy::Packages(names) = remedy {
            println!("missing: {what}: {why}");
            packages.extend(names.iter().map(String::as_str));
        }
    }
    if !packages.is_empty() {
        debian::install(&packages)?;
        // Which linker fits is known only now.
        missing = look(&needs, &mut Vec::new(), debian);
        if !missing.iter().all(|m| matches!(m.remedy, Remedy::Linker(_))) {
            return Err(list(&missing, debian));
        }
    }
    for Missing { what, why, remedy, .. } in &missing {
        if let Remedy::Linker(plan) = remedy {
            println!("missing: {what}: {why}");
            linker::build(plan)?;
        }
    }
    if talk == Talk::Full {
        println!("setup: complete after {:.1} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Installs what is missing of what `bench l4` and `l7` measure balancer beside, and says where Envoy is.
/// What cannot be had is told and is no failure: the bench names what it goes without.
pub(crate) fn peers() -> Option<std::path::PathBuf> {
    if let Err(e) = run(Talk::Short, &[Group::Bench]) {
        eprintln!("warning: {e:#}");
    }
    let envoy = envoy::find().and_then(|found| match found {
        Some(path) => Ok(path),
        None => envoy::install(),
    });
    envoy.inspect_err(|e| eprintln!("warning: no Envoy: {e:#}")).ok()
}

/// Looks for all of `needs`; describes in `found` what is there.
fn look(needs: &[Need], found: &mut Vec<String>, debian: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    // Several packages make one toolchain: it is looked for once.
    let toolchain: Vec<_> = needs.iter().filter(|need| need.look == Look::Toolchain).collect();
    if let Some(need) = toolchain.first() {
        let packages: Vec<_> = toolchain.iter().map(|need| need.package.as_str()).collect();
        look_for_toolchain(&packages, &need.why, found, &mut missing, debian);
    }
    for Need { package, look, why, .. } in needs {
        let (what, name, seen) = match look {
            Look::Toolchain | Look::Never => continue,
            Look::Program(name) => ("program", name, needs::program(name)),
            Look::Header(name) => ("C header", name, needs::header(name)),
            Look::Path(file) => ("file", file, needs::path(file)),
        };
        let detail = match seen {
            Ok(seen) => {
                found.push(format!("{name}: {seen}"));
                continue;
            }
            Err(detail) => detail,
        };
        let command = if debian {
            debian::command(&[package])
        } else {
            format!("install the package that has `{name}` (Debian calls it {package})")
        };
        missing.push(Missing {
            what: format!("the {what} `{name}`"),
            detail,
            why: why.clone(),
            commands: vec![command],
            remedy: Remedy::Packages(vec![package.clone()]),
        });
    }
    missing
}

/// Looks for a toolchain that `packages` would make, and for its linker.
fn look_for_toolchain(
    packages: &[&str],
    why: &str,
    found: &mut Vec<String>,
    missing: &mut Vec<Missing>,
    debian: bool,
) {
    let fault = match Toolchain::find(TARGET) {
        Ok(toolchain) => {
            let how =
                if toolchain.core_from_source { "core from rust-src" } else { "core for BPF" };
            found.push(format!(
                "a Rust toolchain for the eBPF object: {} and {} (LLVM {}, {how})",
                toolchain.cargo.display(),
                toolchain.rustc.display(),
                toolchain.llvm
            ));
            return look_for_linker(&toolchain, found, missing);
        }
        Err(fault) => fault,
    };
    let (remedy, command) = if debian {
        let names = packages.iter().map(|&name| name.to_owned()).collect();
        (Remedy::Packages(names), debian::command(packages))
    } else {
        (Remedy::None, "rustup toolchain install nightly --component rust-src".to_owned())
    };
    missing.push(Missing {
        what: "a Rust toolchain for the eBPF object".into(),
        detail: fault.to_string(),
        why: why.to_owned(),
        commands: vec![command],
        remedy,
    });
    missing.push(Missing {
        what: "bpf-linker".into(),
        detail: "which one fits depends on the toolchain".into(),
        why: linker::WHY.into(),
        commands: vec![
            "cargo xtask setup    # again, once the toolchain is there: it must match".into(),
        ],
        remedy: Remedy::LinkerLater,
    });
}

fn look_for_linker(toolchain: &Toolchain, found: &mut Vec<String>, missing: &mut Vec<Missing>) {
    match linker::find(toolchain) {
        Ok(path) => found.push(format!("bpf-linker: {}", path.display())),
        Err(why) => {
            let (commands, remedy) = match Plan::new(toolchain) {
                Ok(plan) => (plan.commands(), Remedy::Linker(plan)),
                Err(e) => (vec![format!("{e:#}")], Remedy::None),
            };
            missing.push(Missing {
                what: format!("bpf-linker for LLVM {}", toolchain.llvm),
                detail: format!("{why:#}"),
                why: linker::WHY.into(),
                commands,
                remedy,
            });
        }
    }
}

fn list(missing: &[Missing], debian: bool) -> anyhow::Error {
    println!("missing:");
    for Missing { what, detail, why, commands, .. } in missing {
        println!("- {what}: {why}");
        for line in detail.lines() {
            println!("  ({line})");
        }
        for command in commands {
            println!("    {command}");
        }
    }
    let reason = if !debian {
        "packages are installed on Debian only"
    } else if !nix::unistd::geteuid().is_root() {
        "installing Debian packages needs root"
    } else {
        "the rest is for you to decide"
    };
    anyhow::anyhow!("{} of what is needed is missing, and {reason}", missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(look: Look) -> Need {
        Need { group: Group::Run, package: "some-package".into(), look, why: "a test".into() }
    }

    #[test]
    fn what_is_there_is_found_and_what_is_missing_names_its_package() {
        let needs = [
            need(Look::Program("sh".into())),
            need(Look::Program("balancer-has-no-such".into())),
            need(Look::Header("balancer-has-no-such.h".into())),
        ];
        for (debian, command) in [
            (true, "sudo apt-get install --no-install-recommends some-package"),
            (
                false,
                "install the package that has `balancer-has-no-such` (Debian calls it some-package)",
            ),
        ] {
            let mut found = Vec::new();
            let missing = look(&needs, &mut found, debian);
            assert!(matches!(&found[..], [sh] if sh.starts_with("sh: /")), "{found:?}");
            let [program, header] = &missing[..] else { panic!("{} are missing", missing.len()) };
            assert_eq!(program.what, "the program `balancer-has-no-such`");
            assert_eq!(program.commands, [command]);
            assert_eq!(header.what, "the C header `balancer-has-no-such.h`");
            for Missing { remedy, .. } in &missing {
                assert!(matches!(remedy, Remedy::Packages(names) if names == &["some-package"]));
            }
        }
    }
}
