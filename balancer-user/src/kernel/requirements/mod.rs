//! What balancer needs of a kernel, what it can do without, and what this kernel has.
//!
//! `features` is the table, `probe` asks the running kernel, this file judges. A version is
//! printed as advice and never compared: distributions carry features back, and build without.

mod features;
mod probe;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

pub use features::{Feature, Need, Version};

use super::{KernelError, Link, create, lock, object};

/// What the kernel said about one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Here,
    /// It is not.
    Lacking,
    /// It could not be asked, or need not be; why.
    NotAsked(&'static str),
}

/// What this kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// In the order of [`Feature::ALL`].
    pub answers: Vec<(Feature, Presence)>,
    /// How to mount a BPF file system, where that is missing.
    pub mount: Option<String>,
}

/// What was found, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Features of the kernel without which balancer does not run.
    pub lacks: Vec<Feature>,
    /// What an administrator has to switch on.
    pub set_up: Vec<Feature>,
    /// Features that something else stands in for.
    pub fall_backs: Vec<Feature>,
}

impl Probed {
    /// Whether the kernel has it; `None`: not asked.
    pub fn has(&self, feature: Feature) -> Option<bool> {
        self.answers.iter().find(|(asked, _)| *asked == feature).and_then(
            |(_, answer)| match answer {
                Presence::Here => Some(true),
                Presence::Lacking => Some(false),
                Presence::NotAsked(_) => None,
            },
        )
    }

    /// Judges.
    pub fn judgement(&self) -> Judgement {
        let lacking = |wanted: fn(Need) -> bool| {
            let lacks = self.answers.iter().filter(|(_, answer)| *answer == Presence::Lacking);
            lacks.map(|(f, _)| *f).filter(|f| wanted(f.need())).collect()
        };
        Judgement {
            // Whatever stands in for an optional feature is asked about only where it is used.
            lacks: lacking(|need| matches!(need, Need::Always(_) | Need::Without(..))),
            set_up: lacking(|need| matches!(need, Need::SetUp(..))),
            fall_backs: lacking(|need| matches!(need, Need::Optional(_))),
        }
    }
}

impl Judgement {
    /// Whether balancer's programs can be loaded: what else is missing stops it only later.
    pub fn loads(&self) -> bool {
        let other = |f: &Feature| !matches!(f, Feature::Clsact | Feature::BpfFileSystem);
        !self.lacks.iter().chain(&self.set_up).any(other)
    }

    /// Whether balancer will run.
    pub fn runs(&self) -> bool {
        self.lacks.is_empty() && self.set_up.is_empty()
    }

    /// The first kernel that has all that is lacking.
    pub fn first(&self) -> Option<Version> {
        self.lacks.iter().map(|feature| feature.since()).max()
    }

    /// Why balancer does not run here, if it does not.
    pub fn refusal(&self, release: &str) -> Option<String> {
        let (who, missing) = match (self.lacks.is_empty(), self.set_up.is_empty()) {
            (true, true) => return None,
            (true, false) => ("this node is not ready for balancer", &self.set_up),
            (false, _) => ("this kernel cannot run balancer", &self.lacks),
        };
        let who = who.replacen("kernel", &format!("kernel ({release})"), 1);
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        Some(format!("{who}: it lacks {}", missing.join(", ")))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.need() {
            Need::SetUp(..) => f.write_str(self.name()),
            _ => write!(f, "{} (Linux {})", self.name(), self.since()),
        }
    }
}

/// Probes the running kernel. Leaves nothing behind; a module that a probe needs may be loaded
/// by the kernel, as attaching would.
///
/// # Errors
/// [`KernelError::NotPermitted`], or a probe that failed for a reason that says nothing about
/// the kernel.
pub fn find(bpffs: &Path) -> Result<Probed, KernelError> {
    lock::require_privileges("probing the kernel")?;
    let mut probed = Probed { answers: probe::all()?, mount: None };
    let place = match lock::check_place(bpffs) {
        Ok(()) => Presence::Here,
        Err(error @ (KernelError::NoBpffs { .. } | KernelError::NoParent { .. })) => {
            probed.mount = Some(error.to_string());
            Presence::Lacking
        }
        Err(error) => return Err(error),
    };
    probed.answers.push((Feature::BpfFileSystem, place));
    Ok(probed)
}

/// Loads balancer's own programs, and drops them again: what the verifier says to them is the
/// last question, which no list of features answers.
///
/// # Errors
/// As `Datapath::create`.
pub fn try_programs() -> Result<(), KernelError> {
    create::try_load(object::datapath().map_err(|e| KernelError::Object(e.to_string()))?)
}

/// The features that balancer can do without, with what is used here: `yes`, or `no` and what
/// stands in.
///
/// # Errors
/// A probe failed for a reason that says nothing about the kernel.
pub fn fall_backs(links: &[Link]) -> Result<Vec<(Feature, bool, String)>, KernelError> {
    let mut rows = Vec::new();
    for feature in Feature::ALL {
        let Need::Optional(instead) = feature.need() else { continue };
        let has = probe::optional(feature)?;
        let used = if feature == Feature::Tcx {
            features::hooks_in_use(has, links)
        } else if has {
            "yes".to_owned()
        } else {
            format!("no, {instead}")
        };
        rows.push((feature, has, used));
    }
    Ok(rows)
}
