//! A pin directory that is removed with everything in it, also when a test fails.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use balancer_user::{
    compile::Limits,
    kernel::{self, Datapath, KernelError, Lock, PublishOptions},
};
use harness::{Bpffs, Root};

/// Small enough that many tests can run at a time.
pub(crate) fn small() -> Limits {
    Limits {
        flows: 1024,
        half_open: 1024,
        services: 64,
        sources: 64,
        routes: 128,
        reals: 256,
        counters: 256,
        arena_slots: 1 << 18,
    }
}

/// A pin directory in a BPF file system of its own.
pub(crate) struct Bed {
    dir: PathBuf,
    // Unmounted after `drop` has unloaded what is pinned there.
    _bpffs: Bpffs,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let root = Root::check().expect("whoever makes a bed has asked");
        let bpffs = Bpffs::mount(root, "bed").expect("bpffs");
        Self { dir: bpffs.pins(), _bpffs: bpffs }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn lock(&self) -> Lock {
        kernel::lock(&self.dir).expect("lock")
    }

    pub(crate) fn create(&self, limits: &Limits) -> Datapath {
        Datapath::create(&self.lock(), limits).expect("create")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        match kernel::unload(&self.dir) {
            Ok(_) | Err(KernelError::NotLoaded { .. }) => {}
            Err(e) if std::thread::panicking() => eprintln!("cleaning up: {e}"),
            Err(e) => panic!("cleaning up: {e}"),
        }
    }
}

/// Options that most tests use.
pub(crate) fn plain<'a>() -> PublishOptions<'a> {
    PublishOptions {
        previous_for: Duration::from_secs(3600),
        gone_reset: Some(Duration::ZERO),
        ..PublishOptions::default()
    }
}
