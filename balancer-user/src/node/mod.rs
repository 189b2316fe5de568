//! A node's datapath and what is kept beside it: from a set that was read to the live one.
//!
//! ```text
//! open ──> resolve ──> carry_out: compile ──> create? ──> attach ──> record ──> publish
//! lock, state          capacity known         maps        hooks      state      maps
//! ```
//!
//! Belongs here: the order of these steps, and what is undone when one of them fails. Whatever
//! can be known to fail is known before the first write. Does not know where policies come from,
//! when something changes, or words for people: `cli` loads once by it, `agent` again and again.
#![forbid(unsafe_code)]

use std::{path::Path, time::Duration};

use crate::{
    compile::{Assignment, Compiler, Tables},
    kernel::{
        self, AttachOptions, Attached, Attachment, Datapath, KernelError, Lock, PublishOptions,
        Published,
    },
    policy::PolicySet,
    resolve::{ResolveSettings, Resolved, VipAssignments, VipKey},
    settings::{OnGone, Settings},
    store::{Live, Store, StoreError},
};

mod error;

pub use error::{LimitDiffers, NodeError, limits_are_pinned};

/// How long a gone real keeps its connections with `on_gone: reset`: a file rewritten in two
/// steps breaks nothing (decision D15).
const GONE_RESET: Duration = Duration::from_secs(5);

/// The right to write at one pin directory, with its state directory.
#[derive(Debug)]
pub struct Node {
    lock: Lock,
    store: Store,
    /// `None`: nothing is pinned, or nobody has looked yet.
    datapath: Option<Datapath>,
    /// This process made the maps, and nothing was published to them yet.
    made: bool,
    compiler: Compiler,
}

/// A set to carry out.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What it was resolved from: its texts are recorded.
    pub set: &'a PolicySet,
    /// What it was resolved with.
    pub resolve_settings: &'a ResolveSettings,
    /// What resolution came to, free of errors.
    pub resolved: &'a Resolved,
    /// `limits` and `drain`.
    pub settings: &'a Settings,
    /// Interfaces to attach to, each there.
    pub interfaces: &'a [String],
}

/// A set that is live.
#[derive(Debug)]
pub struct Carried {
    /// Programs and maps were made for it.
    pub first: bool,
    /// What the maps hold.
    pub tables: Tables,
    /// What is new and what is gone.
    pub difference: Difference,
    /// What [`Datapath::attach`] did.
    pub attached: Attached,
    /// Epoch and times.
    pub published: Published,
    /// Records of earlier sets could not be removed; the next set tries again.
    pub left: Option<StoreError>,
}

/// VIPs and sources that one set has and the other has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only the new set has them.
    pub vips_added: Vec<VipKey>,
    /// Only the set before had them.
    pub vips_removed: Vec<VipKey>,
    /// Number of sources that only the new set has.
    pub sources_added: usize,
    /// Number of sources that only the set before had.
    pub sources_removed: usize,
}

impl Difference {
    fn of(before: &Assignment, tables: &Tables) -> Self {
        let (vips, sources) = (&before.vips, &before.sources);
        let new = |key: &&VipKey| !vips.contains_key(key);
        let gone = |key: &&VipKey| !tables.vips.contains_key(key);
        Self {
            vips_added: tables.vips.keys().filter(new).copied().collect(),
            vips_removed: vips.keys().filter(gone).copied().collect(),
            sources_added: tables.sources.keys().filter(|key| !sources.contains_key(key)).count(),
            sources_removed: sources.keys().filter(|key| !tables.sources.contains_key(key)).count(),
        }
    }
}

impl Node {
    /// Takes the right to write at `bpffs`; records are kept in `state`.
    ///
    /// # Errors
    /// Another process writes, a privilege is missing, or the state directory cannot be used or
    /// belongs to another instance.
    pub fn open(bpffs: &Path, state: &Path) -> Result<Self, NodeError> {
        let lock = kernel::lock(bpffs).map_err(NodeError::kernel("cannot load"))?;
        let store = Store::open(state)?;
        store.check_owner(bpffs)?;
        Ok(Self { lock, store, datapath: None, made: false, compiler: Compiler::new() })
    }

    /// The pin directory.
    pub fn bpffs(&self) -> &Path {
        self.lock.path()
    }

    /// VIPs allocated so far.
    ///
    /// # Errors
    /// The record cannot be read or is damaged.
    pub fn assigned(&self) -> Result<VipAssignments, NodeError> {
        Ok(self.store.assignments()?)
    }

    /// What is loaded at the pin directory; `None` where nothing (complete) is.
    ///
    /// # Errors
    /// It is of another version, or the kernel refuses.
    pub fn datapath(&mut self) -> Result<Option<&mut Datapath>, NodeError> {
        if self.datapath.is_none() {
            self.datapath = match Datapath::open(&self.lock) {
                Ok(datapath) => Some(datapath),
                Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => None,
                Err(error) => return Err(NodeError::kernel("cannot load")(error)),
            };
        }
        Ok(self.datapath.as_mut())
    }

    /// Makes the set the live one and attaches to its interfaces, those first: the programs then
    /// carry the set before (none, at first), and a hook that refuses leaves that set live.
    ///
    /// # Errors
    /// The set before stays live. Where nothing was loaded before, [`Node::give_up`] removes what
    /// was made.
    pub fn carry_out(&mut self, wanted: &Wanted<'_>) -> Result<Carried, NodeError> {
        let tables = self.compile(wanted)?;
        let first = self.datapath.is_none();
        let limits = wanted.settings.limits.unwrap_or_default();
        let datapath = match &mut self.datapath {
            Some(datapath) => datapath,
            missing => {
                let made = Datapath::create(&self.lock, &limits)
                    .map_err(NodeError::kernel("cannot load"))?;
                self.made = true;
                missing.insert(made)
            }
        };
        let before = datapath.assignment().map_err(NodeError::kernel("cannot load"))?;
        let difference = Difference::of(before, &tables);
        let attached = attach(datapath, wanted.interfaces)?;
        let published = self.publish(&tables, wanted)?;
        let left = self.store.forget_others(published.epoch).err();
        Ok(Carried { first, tables, difference, attached, published, left })
    }

    /// What the maps should hold: ids that are in use stay, and everything fits.
    fn compile(&mut self, wanted: &Wanted<'_>) -> Result<Tables, NodeError> {
        let bpffs = self.lock.path().to_owned();
        let pinned = self.datapath()?.is_some();
        let failed = NodeError::kernel("cannot load");
        let nothing = Assignment::default();
        let (before, limits) = match &mut self.datapath {
            Some(datapath) => {
                let limits = datapath.limits().map_err(&failed)?;
                limits_are_pinned(&bpffs, wanted.settings, &limits)?;
                (datapath.assignment().map_err(&failed)?, limits)
            }
            None => (&nothing, wanted.settings.limits.unwrap_or_default()),
        };
        self.compiler
            .compile(wanted.resolved, before, &limits)
            .map_err(|source| NodeError::Capacity { source, pinned })
    }

    fn publish(&mut self, tables: &Tables, wanted: &Wanted<'_>) -> Result<Published, NodeError> {
        let Self { lock, store, datapath: Some(datapath), .. } = self else {
            return Err(NodeError::kernel("cannot publish")(KernelError::NotLoaded {
                path: self.lock.path().to_owned(),
            }));
        };
        let live = Live {
            bpffs: lock.path().to_owned(),
            settings: ResolveSettings {
                assigned: wanted.resolved.assigned.clone(),
                ..wanted.resolve_settings.clone()
            },
            texts: wanted.set.texts.clone(),
        };
        let save = |epoch| {
            store.save_assignments(&live.settings.assigned)?;
            store.save_live(epoch, &live)
        };
        let mut recorded = None;
        let mut record = |epoch| {
            let saved = save(epoch);
            recorded = Some(epoch);
            saved.map_err(Into::into)
        };
        let drain = wanted.settings.drain;
        let published = datapath
            .publish(
                tables,
                PublishOptions {
                    previous_for: drain.previous_for,
                    gone_reset: (drain.on_gone == OnGone::Reset).then_some(GONE_RESET),
                    interfaces: wanted.interfaces,
                    before_flip: Some(&mut record),
                },
            )
            .map_err(NodeError::kernel("cannot publish; the set before stays live"))?;
        self.made = false;
        // Equal tables are not published again, but names and positions may have changed.
        if recorded != Some(published.epoch) {
            save(published.epoch)?;
        }
        Ok(published)
    }

    /// Removes programs and maps that this process made and to which nothing was published:
    /// nothing was running there before. Anything else stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give_up(self) -> Result<(), KernelError> {
        let Self { lock, datapath, made, .. } = self;
        let bpffs = lock.path().to_owned();
        drop(datapath);
        drop(lock);
        if !made || !bpffs.exists() {
            return Ok(());
        }
        kernel::unload(&bpffs).map(drop)
    }
}

fn attach(datapath: &mut Datapath, interfaces: &[String]) -> Result<Attached, NodeError> {
    let attachments: Vec<Attachment> =
        interfaces.iter().map(|name| Attachment { interface: name.clone() }).collect();
    datapath
        .attach(&attachments, AttachOptions::default())
        .map_err(NodeError::kernel("cannot attach; the set before stays live"))
}
