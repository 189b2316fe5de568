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

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use crate::{
    compile::{Assignment, Compiler, Limits, Patch, Tables},
    kernel::{
        self, AttachOptions, Attached, Attachment, BeforeFlip, Datapath, KernelError, Link, Lock,
        PublishOptions, Published, Recount,
    },
    policy::PolicySet,
    resolve::{Names, Parts, ResolveSettings, Resolved, VipAssignments, VipKey},
    settings::{L7Fallback, OnGone, PortRange, Settings},
    store::{Recorder, Store, StoreError},
};

mod error;
mod forwarding;
mod one_way;
mod proxy;
mod snat;

pub use error::{LimitDiffers, NodeError, limits_are_pinned};
pub use forwarding::Sending;
pub use one_way::{OtherPort, check_one_way};

/// How long a gone real keeps its connections with `on_gone: reset`: a file rewritten in two
/// steps breaks nothing (decision D15).
const GONE_RESET: Duration = Duration::from_secs(5);

/// The right to write at one pin directory, with its state directory.
#[derive(Debug)]
pub struct Node {
    lock: Lock,
    recorder: Recorder,
    /// `None`: nothing is pinned, or nobody has looked yet.
    datapath: Option<Datapath>,
    /// This process made the maps, and nothing was published to them yet.
    made: bool,
    compiler: Compiler,
    /// What `compiler` made last is live.
    live: bool,
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
    /// See [`PublishOptions::interfaces_as_before`].
    pub interfaces_as_before: bool,
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
    fn of_patch(patch: &Patch) -> Self {
        Self {
            sources_added: patch.sources_added.len(),
            sources_removed: patch.sources_removed.len(),
            ..Self::default()
        }
    }

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
        let recorder = Recorder::new(store, bpffs);
        let compiler = Compiler::new();
        Ok(Self { lock, recorder, datapath: None, made: false, compiler, live: false })
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
        Ok(self.recorder.store().assignments()?)
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

    /// What is loaded, where somebody has looked; see [`Node::datapath`].
    pub fn datapath_if_open(&self) -> Option<&Datapath> {
        self.datapath.as_ref()
    }

    /// The live epoch, where anything is loaded.
    pub fn epoch(&self) -> Option<u64> {
        self.datapath.as_ref().map(|datapath| datapath.epoch())
    }

    /// Every real of the maps, those that drain or are gone included; sorted.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn reals(&mut self) -> Result<Vec<SocketAddr>, KernelError> {
        Ok(self.loaded()?.assignment()?.reals.keys().copied().collect())
    }

    /// The answers for names that the live set was resolved with, where it is recorded.
    ///
    /// # Errors
    /// The record cannot be read or is damaged.
    pub fn live_names(&self) -> Result<Option<Names>, NodeError> {
        let Some(epoch) = self.epoch() else { return Ok(None) };
        Ok(self.recorder.store().live(epoch)?.map(|live| live.settings.names))
    }

    /// See [`Datapath::forget_gone_interfaces`].
    ///
    /// # Errors
    /// As there.
    pub fn forget_gone_interfaces(&mut self) -> Result<Vec<String>, KernelError> {
        self.loaded()?.forget_gone_interfaces()
    }

    /// See [`Datapath::detach`].
    ///
    /// # Errors
    /// As there.
    pub fn detach(&mut self, interface: &str) -> Result<Vec<Link>, KernelError> {
        self.loaded()?.detach(interface)
    }

    /// Keeps a file beside the other state.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.recorder.store().keep(name, bytes)
    }

    /// The file that [`Node::keep`] keeps; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.recorder.store().kept(name)
    }

    /// Retires what has run out since `tables` were published: reals that are gone, tables before
    /// a change, ports that nothing uses. Counts live connections anew.
    ///
    /// # Errors
    /// What the kernel says, or the record of a new epoch cannot be written.
    pub fn sweep(&mut self, tables: &Tables, settings: &Settings) -> Result<Recount, NodeError> {
        let failed = NodeError::kernel("cannot retire what is no longer named");
        let live = std::mem::take(&mut self.live);
        let Self { lock, recorder, datapath, .. } = self;
        let datapath = loaded(lock, datapath).map_err(&failed)?;
        let (current, limits) = (datapath.epoch(), datapath.limits().map_err(&failed)?);
        let mut record = |epoch| {
            let saved = if epoch == current { Ok(()) } else { recorder.save_again(current, epoch) };
            saved.map_err(Into::into)
        };
        let options = options(settings, &limits, &mut record, true);
        let published = datapath.publish(tables, options).map_err(&failed)?;
        let recount = datapath.recount();
        let recount = recount.map_err(NodeError::kernel("cannot count live connections anew"))?;
        if published.epoch != current {
            recorder.settle(published.epoch)?;
        }
        self.live = live;
        Ok(recount)
    }

    /// Makes the set the live one and attaches to its interfaces, those first: the programs then
    /// carry the set before (none, at first), and a hook that refuses leaves that set live.
    ///
    /// # Errors
    /// The set before stays live. Where nothing was loaded before, [`Node::give_up`] removes what
    /// was made.
    pub fn carry_out(
        &mut self,
        wanted: &Wanted<'_>,
        interfaces: &[Attachment],
    ) -> Result<Carried, NodeError> {
        let tables = self.compile(wanted)?;
        self.check_one_way(&tables, interfaces)?;
        let first = self.make(wanted.settings)?;
        let attached = self
            .attach(interfaces, snat::configured(wanted.settings))
            .map_err(NodeError::kernel("cannot attach; the set before stays live"))?;
        if let Some(ports) = snat::configured(wanted.settings) {
            self.set_snat_ports(ports).map_err(NodeError::kernel("cannot set ports of snat"))?;
        }
        let (difference, published, left) = self.publish(&tables, None, wanted)?;
        Ok(Carried { first, tables, difference, attached, published, left })
    }

    /// What the maps should hold: ids that are in use stay, and everything fits. Writes nothing.
    ///
    /// # Errors
    /// [`NodeError::Capacity`], [`NodeError::LimitsDiffer`], or the maps cannot be read.
    pub fn compile(&mut self, wanted: &Wanted<'_>) -> Result<Tables, NodeError> {
        // Until it is published, what comes next is compiled as a whole too.
        self.live = false;
        let nothing = Assignment::default();
        let pinned = self.datapath()?.is_some();
        let limits = self.limits(wanted.settings)?;
        let Self { datapath, compiler, .. } = self;
        let before = match datapath {
            Some(datapath) => datapath.assignment().map_err(NodeError::kernel("cannot load"))?,
            None => &nothing,
        };
        let mut tables = compiler
            .compile(wanted.resolved, before, &limits)
            .map_err(|source| NodeError::Capacity { source, pinned })?;
        tables.warnings.extend(wanted.settings.idle_protocols(wanted.resolved));
        Ok(tables)
    }

    /// The same for a small change: makes the `tables` that are live what `wanted` asks for, which
    /// differs by `parts` from what they were made of. `None`: [`Node::compile`] has to be asked;
    /// `tables` are as they were.
    ///
    /// # Errors
    /// [`NodeError::LimitsDiffer`], or the maps cannot be read.
    pub fn patch(
        &mut self,
        tables: &mut Tables,
        wanted: &Wanted<'_>,
        parts: &Parts,
    ) -> Result<Option<Patch>, NodeError> {
        if !std::mem::take(&mut self.live) {
            return Ok(None);
        }
        let limits = self.limits(wanted.settings)?;
        let Self { datapath: Some(datapath), compiler, .. } = self else { return Ok(None) };
        let before = datapath.assignment().map_err(NodeError::kernel("cannot load"))?;
        Ok(compiler.patch(tables, wanted.resolved, parts, before, &limits))
    }

    /// The limits of the maps, or of those that will be made.
    fn limits(&self, settings: &Settings) -> Result<Limits, NodeError> {
        let Some(datapath) = &self.datapath else { return Ok(settings.limits.unwrap_or_default()) };
        let limits = datapath.limits().map_err(NodeError::kernel("cannot load"))?;
        limits_are_pinned(self.lock.path(), settings, &limits)?;
        Ok(limits)
    }

    /// Makes programs and maps, of the sizes of `settings`, where nothing (complete) is pinned.
    /// True: they were made now.
    ///
    /// # Errors
    /// What the kernel says; nothing is left of the attempt.
    pub fn make(&mut self, settings: &Settings) -> Result<bool, NodeError> {
        if self.datapath()?.is_some() {
            return Ok(false);
        }
        let datapath = Datapath::create(&self.lock, &settings.limits.unwrap_or_default())
            .map_err(NodeError::kernel("cannot load"))?;
        self.datapath = Some(datapath);
        self.made = true;
        Ok(true)
    }

    /// Refuses what reals that answer by themselves cannot take, on interfaces that are attached so
    /// or are about to be.
    fn check_one_way(
        &mut self,
        tables: &Tables,
        interfaces: &[Attachment],
    ) -> Result<(), NodeError> {
        let mut one_way: BTreeSet<String> = match self.datapath()? {
            Some(datapath) => {
                let failed = NodeError::kernel("cannot load");
                datapath.one_way_interfaces().map_err(failed)?.into_iter().collect()
            }
            None => BTreeSet::new(),
        };
        // What is asked for last counts.
        for Attachment { interface, xdp, .. } in interfaces {
            if xdp.is_some_and(|xdp| xdp.mode.is_dsr()) {
                one_way.insert(interface.clone());
            } else {
                one_way.remove(interface);
            }
        }
        check_one_way(tables, one_way.into_iter().collect())
    }

    /// Attaches to interfaces, all of them or none. `ports`: what reals see where one of them asks
    /// for source translation; `None`: as before.
    ///
    /// # Errors
    /// See [`Datapath::attach`].
    pub fn attach(
        &mut self,
        interfaces: &[Attachment],
        ports: Option<PortRange>,
    ) -> Result<Attached, KernelError> {
        let snat_ports = ports.map(snat::of_kernel);
        let options = AttachOptions { snat_ports, ..AttachOptions::default() };
        self.loaded()?.attach(interfaces, options)
    }

    /// Records the set and makes `tables`, compiled from it, the live ones. `patch`: what
    /// [`Node::patch`] changed in them.
    ///
    /// # Errors
    /// The set before stays live; [`KernelError::AfterFlip`] is the exception and says so. After
    /// any of them, patched tables are no longer those of the set before.
    pub fn publish(
        &mut self,
        tables: &Tables,
        patch: Option<&Patch>,
        wanted: &Wanted<'_>,
    ) -> Result<(Difference, Published, Option<StoreError>), NodeError> {
        self.live = false;
        self.check_one_way(tables, &[])?;
        let failed = NodeError::kernel("cannot publish; the set before stays live");
        let Self { lock, recorder, datapath, .. } = self;
        let datapath = loaded(lock, datapath).map_err(&failed)?;
        let difference = match patch {
            Some(patch) => Difference::of_patch(patch),
            None => Difference::of(datapath.assignment().map_err(&failed)?, tables),
        };
        // A small change allocates no VIP.
        let assigned = patch.is_none().then_some(&wanted.resolved.assigned);
        let mut save = |epoch| {
            recorder.save(epoch, wanted.resolve_settings, assigned, &wanted.set.documents.texts)
        };
        let mut recorded = None;
        let mut record = |epoch| {
            let saved = save(epoch);
            recorded = Some(epoch);
            saved.map_err(Into::into)
        };
        let limits = datapath.limits().map_err(&failed)?;
        let before = wanted.interfaces_as_before;
        let options = options(wanted.settings, &limits, &mut record, before);
        let published = match patch {
            Some(patch) => datapath.publish_patch(tables, patch, options),
            None => datapath.publish(tables, options),
        }
        .map_err(&failed)?;
        // Equal tables are not published again, but names and positions may have changed.
        if recorded != Some(published.epoch) {
            save(published.epoch)?;
        }
        (self.made, self.live) = (false, true);
        let left = self.recorder.settle(published.epoch).err();
        Ok((difference, published, left))
    }

    fn loaded(&mut self) -> Result<&mut Datapath, KernelError> {
        loaded(&self.lock, &mut self.datapath)
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

fn loaded<'a>(
    lock: &Lock,
    datapath: &'a mut Option<Datapath>,
) -> Result<&'a mut Datapath, KernelError> {
    datapath.as_mut().ok_or_else(|| KernelError::NotLoaded { path: lock.path().to_owned() })
}

/// `limits` are those of the maps.
fn options<'a>(
    settings: &Settings,
    limits: &Limits,
    record: BeforeFlip<'a>,
    interfaces_as_before: bool,
) -> PublishOptions<'a> {
    PublishOptions {
        previous_for: settings.drain.previous_for,
        gone_reset: (settings.drain.on_gone == OnGone::Reset).then_some(GONE_RESET),
        new_flows: settings.new_flows.limit(limits),
        l7_reset: settings.l7_fallback == L7Fallback::Reset,
        // Those that matter are attached to already.
        interfaces: &[],
        interfaces_as_before,
        before_flip: Some(record),
    }
}
