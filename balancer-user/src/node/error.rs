//! Why a set could not be carried out.

use std::path::{Path, PathBuf};

use balancer_ebpf::abi::{CHUNK_WORDS, SLOTS_PER_WORD};

use crate::{
    compile::{CapacityError, Limits},
    kernel::KernelError,
    settings::Settings,
    store::StoreError,
};

use super::one_way::OtherPort;

/// Why a set could not be carried out. The set before stays live.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state directory refuses, or what is in it is damaged.
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    /// The kernel refuses, or what is pinned cannot be used.
    #[error("{doing}")]
    Kernel {
        /// What could not be done.
        doing: &'static str,
        /// Why not.
        source: KernelError,
    },
    /// More than the limits hold. Nothing was written.
    #[error("{source}")]
    Capacity {
        /// Which limit, and what would do.
        source: CapacityError,
        /// The limits are those of pinned maps, which cannot grow.
        pinned: bool,
    },
    /// A real has another port than its VIP, and answers clients by itself. Nothing was written.
    #[error(
        "direct server return cannot change ports: {} has the real {}, and packets to it come in \
         by {}",
        .found.vip, .found.real, .interfaces.join(", ")
    )]
    OneWay {
        /// The VIP and the real.
        found: OtherPort,
        /// Where packets are sent on as they are.
        interfaces: Vec<String>,
    },
    /// The configuration asks for other sizes than the pinned maps have.
    #[error(
        "the sizes of the configuration differ from those of what is loaded at {}: {}",
        .bpffs.display(), listed(.differing)
    )]
    LimitsDiffer {
        /// The pin directory.
        bpffs: PathBuf,
        /// Which.
        differing: Vec<LimitDiffers>,
    },
}

/// A limit whose pinned maps have another size than the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitDiffers {
    /// The key below `limits`.
    pub key: &'static str,
    /// Of the configuration.
    pub asked: u32,
    /// Of the maps.
    pub pinned: u32,
}

fn listed(differing: &[LimitDiffers]) -> String {
    let one = |limit: &LimitDiffers| {
        format!("limits.{} is {}, pinned with {}", limit.key, limit.asked, limit.pinned)
    };
    differing.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl NodeError {
    /// An error of the kernel room while `doing`.
    pub(super) fn kernel(doing: &'static str) -> impl Fn(KernelError) -> Self {
        move |source| Self::Kernel { doing, source }
    }

    /// What to do about it, where more is known than the error itself says.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Kernel { source: KernelError::Rejected(_), .. } => {
                Some("balancer status --requirements says what this kernel lacks".to_owned())
            }
            Self::Kernel { .. } => None,
            Self::Capacity { pinned: true, .. } => Some(
                "raise the limit in the configuration file, `balancer unload`, then load with \
                 --config"
                    .to_owned(),
            ),
            Self::Capacity { pinned: false, .. } => {
                Some("raise the limit in the configuration file and load with --config".to_owned())
            }
            Self::OneWay { found, interfaces } => Some(format!(
                "let the service's port {} and the port that its endpoints listen on be one, or \
                 take the mode nat on {} (`mode: nat`, with load --attach {}=xdp)",
                found.vip.addr.port(),
                interfaces.join(", "),
                interfaces.join("=xdp --attach ")
            )),
            Self::LimitsDiffer { bpffs, .. } => Some(format!(
                "sizes are fixed when maps are made; keep the pinned ones, or unload first \
                 (connections through VIPs break)\nbalancer unload --bpffs {}",
                bpffs.display()
            )),
        }
    }
}

/// Maps cannot be resized: sizes that the file gives must be those pinned.
///
/// # Errors
/// [`NodeError::LimitsDiffer`].
pub fn limits_are_pinned(
    bpffs: &Path,
    settings: &Settings,
    pinned: &Limits,
) -> Result<(), NodeError> {
    let Some(asked) = settings.limits else { return Ok(()) };
    let differing: Vec<LimitDiffers> = [
        ("flows", asked.flows, pinned.flows),
        ("half_open", asked.half_open, pinned.half_open),
        ("services", asked.services, pinned.services),
        ("sources", asked.sources, pinned.sources),
        ("routes", asked.routes, pinned.routes),
        ("reals", asked.reals, pinned.reals),
        ("counters", asked.counters, pinned.counters),
        ("arena_slots", arena_slots(asked.arena_slots), pinned.arena_slots),
    ]
    .into_iter()
    .filter(|(key, asked, pinned)| {
        settings.present.contains(&format!("limits.{key}")) && asked != pinned
    })
    .map(|(key, asked, pinned)| LimitDiffers { key, asked, pinned })
    .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(NodeError::LimitsDiffer { bpffs: bpffs.to_owned(), differing })
}

/// Slots of the arena as its chunks hold them.
fn arena_slots(asked: u32) -> u32 {
    let chunk = CHUNK_WORDS as u32 * SLOTS_PER_WORD;
    asked.div_ceil(chunk).saturating_mul(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_is_counted_in_whole_chunks() {
        assert_eq!(arena_slots(1), 65_536);
        assert_eq!(arena_slots(65_536), 65_536);
        assert_eq!(arena_slots(Limits::default().arena_slots), Limits::default().arena_slots);
    }

    #[test]
    fn only_sizes_that_the_file_gives_must_be_those_pinned() {
        let limits = Limits { flows: 1, services: 2, ..Limits::default() };
        let mut settings = Settings { limits: Some(limits), ..Settings::default() };
        let pinned = Limits { flows: 3, services: 4, ..Limits::default() };
        let place = Path::new("/pins");
        assert!(limits_are_pinned(place, &settings, &pinned).is_ok());
        settings.present.push("limits.services".to_owned());
        let error = limits_are_pinned(place, &settings, &pinned).expect_err("differs");
        let text = error.to_string();
        assert!(text.ends_with("loaded at /pins: limits.services is 2, pinned with 4"), "{text}");
    }
}
