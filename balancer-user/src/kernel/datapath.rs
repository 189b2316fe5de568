//! The right to write: opening for it, and what is remembered between two publishes.

use std::{ops::Deref, path::Path, sync::Arc};

use crate::compile::{Assignment, Limits};

use super::{
    KernelError, Lock, View, attach, create, direct::Ticks, layout::Pins, mapped::Access, object,
    publish::Memory,
};

/// A loaded datapath that this process may change. It reads like a [`View`].
#[derive(Debug)]
pub struct Datapath {
    pub(crate) view: Arc<View>,
    pub(crate) memory: Memory,
    /// When jiffies were read, once that was needed.
    pub(crate) ticks: Option<Ticks>,
    lock: Lock,
}

impl Deref for Datapath {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

impl Datapath {
    /// Opens what is pinned at the lock's directory.
    ///
    /// # Errors
    /// [`KernelError::NotLoaded`], [`KernelError::Incomplete`] (make it anew with
    /// [`Datapath::create`]), [`KernelError::AbiVersion`], [`KernelError::MapShape`].
    pub fn open(lock: &Lock) -> Result<Self, KernelError> {
        let view = View::open(lock.path(), Access::Write)?;
        Ok(Self {
            view: Arc::new(view),
            memory: Memory::unknown(),
            ticks: None,
            lock: lock.clone(),
        })
    }

    /// Loads programs and maps of the sizes that `limits` ask for, and pins them. Nothing is
    /// published or attached yet. What a first load left that was cut short is removed first.
    ///
    /// # Errors
    /// [`KernelError::AlreadyLoaded`], [`KernelError::IncompleteButAttached`],
    /// [`KernelError::Limit`], [`KernelError::Memory`], [`KernelError::Rejected`], …
    pub fn create(lock: &Lock, limits: &Limits) -> Result<Self, KernelError> {
        let object = object::datapath().map_err(|e| KernelError::Object(e.to_string()))?;
        Self::create_from_object(lock, limits, object)
    }

    /// [`Datapath::create`] from the bytes of another ELF object.
    ///
    /// # Errors
    /// See [`Datapath::create`].
    pub fn create_from_object(
        lock: &Lock,
        limits: &Limits,
        object: &[u8],
    ) -> Result<Self, KernelError> {
        let pins = Pins::new(lock.path());
        match View::open(lock.path(), Access::Read) {
            Ok(_) => return Err(KernelError::AlreadyLoaded { path: lock.path().to_owned() }),
            Err(KernelError::NotLoaded { .. }) => {}
            Err(KernelError::Incomplete { path, missing }) => {
                if attach::any_pinned(&pins)? {
                    return Err(KernelError::IncompleteButAttached { path, missing });
                }
                create::remove_pins(&pins)?;
            }
            Err(e) => return Err(e),
        }
        create::create(&pins, limits, object)?;
        let mut datapath = Self::open(lock)?;
        datapath.memory = Memory::fresh();
        Ok(datapath)
    }

    /// [`Datapath::open`], or [`Datapath::create`] where nothing (complete) is pinned. The
    /// limits of what is pinned stay as they are: see [`View::limits`].
    ///
    /// # Errors
    /// As both.
    pub fn open_or_create(lock: &Lock, limits: &Limits) -> Result<Self, KernelError> {
        match Self::open(lock) {
            Err(KernelError::NotLoaded { .. } | KernelError::Incomplete { .. }) => {
                Self::create(lock, limits)
            }
            other => other,
        }
    }

    /// Opens what is pinned at `bpffs` for reading. Needs no lock.
    ///
    /// # Errors
    /// As [`Datapath::open`].
    pub fn open_read_only(bpffs: &Path) -> Result<View, KernelError> {
        View::open(bpffs, Access::Read)
    }

    /// What only reads.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The same for another thread, which may lack the privileges to open the maps itself.
    pub fn shared_view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The right to write that this datapath holds.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The ids in use, from memory where this process published before.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn assignment(&mut self) -> Result<&Assignment, KernelError> {
        self.recall()?;
        Ok(&self.memory.assignment)
    }
}
