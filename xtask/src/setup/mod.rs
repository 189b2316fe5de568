//! `cargo xtask setup`: what the build, the tests and the demo need.
//!
//! What is there is used; what is missing is installed where that is possible without asking
//! anybody (Debian packages as root on Debian, bpf-linker in the user's cache), with the reason.
//! Where something stays that this cannot install, nothing at all is installed: a list says what
//! is missing and which command installs it.

mod debian;
mod linker;
#[path = "../../../balancer-user/build/object.rs"]
pub(crate) mod object;
#[path = "../../../balancer-user/build/toolchain.rs"]
mod toolchain;

use std::time::Instant;

use anyhow::Result;

use crate::run::program;
use linker::Plan;
use toolchain::Toolchain;

/// What the object is compiled for. Every machine that the tests run on is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Brings Rust and gcc, about 110 MB.
const TOOLCHAIN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Programs that the tests and the demo run: name, Debian package, reason.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("ip", "iproute2", "tests and demo build network namespaces and veth pairs with it"),
    ("ethtool", "ethtool", "tests switch checksum and segmentation offloads with it"),
];

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
    why: &'static str,
    /// Commands that a person can type.
    commands: Vec<String>,
    remedy: Remedy,
}

enum Remedy {
    /// These Debian packages.
    Packages(Vec<&'static str>),
    /// Building bpf-linker.
    Linker(Plan),
    /// Building bpf-linker, once the toolchain is there that it must match.
    LinkerLater,
    /// A person has to.
    None,
}

/// Installs what is missing, or lists it and fails.
pub(crate) fn run(talk: Talk) -> Result<()> {
    let begun = Instant::now();
    let debian = debian::is_debian();
    let may_install = debian && nix::unistd::geteuid().is_root();
    let mut found = Vec::new();
    let mut missing = look(&mut found, debian);
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
            packages.extend(names);
        }
    }
    if !packages.is_empty() {
        debian::install(&packages)?;
        // Which linker fits is known only now.
        missing = look(&mut Vec::new(), debian);
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

/// Looks for everything; describes in `found` what is there.
fn look(found: &mut Vec<String>, debian: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    match Toolchain::find(TARGET) {
        Ok(toolchain) => {
            let how =
                if toolchain.core_from_source { "core from rust-src" } else { "core for BPF" };
            found.push(format!(
                "a Rust toolchain for the eBPF object: {} and {} (LLVM {}, {how})",
                toolchain.cargo.display(),
                toolchain.rustc.display(),
                toolchain.llvm
            ));
            look_for_linker(&toolchain, found, &mut missing);
        }
        Err(why) => {
            let (remedy, commands) = if debian {
                (
                    Remedy::Packages(TOOLCHAIN_PACKAGES.to_vec()),
                    vec![debian::command(&TOOLCHAIN_PACKAGES)],
                )
            } else {
                let nightly = "rustup toolchain install nightly --component rust-src";
                (Remedy::None, vec![nightly.to_owned()])
            };
            missing.push(Missing {
                what: "a Rust toolchain for the eBPF object".into(),
                detail: why.to_string(),
                why: "the programs are compiled for BPF, which needs `core` for that target",
                commands,
                remedy,
            });
            missing.push(Missing {
                what: "bpf-linker".into(),
                detail: "which one fits depends on the toolchain".into(),
                why: linker::WHY,
                commands: vec![
                    "cargo xtask setup    # again, once the toolchain is there: it must match"
                        .into(),
                ],
                remedy: Remedy::LinkerLater,
            });
        }
    }
    for (name, package, why) in PROGRAMS {
        match program(name) {
            Some(path) => found.push(format!("{name}: {}", path.display())),
            None => missing.push(Missing {
                what: format!("the program `{name}`"),
                detail: "neither on PATH nor in /usr/sbin".into(),
                why,
                commands: vec![if debian {
                    debian::command(&[package])
                } else {
                    format!("install the package that has `{name}` (Debian calls it {package})")
                }],
                remedy: Remedy::Packages(vec![package]),
            }),
        }
    }
    missing
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
                why: linker::WHY,
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
