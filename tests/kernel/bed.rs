//! A pin directory that is removed with everything in it, also when a test fails.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use balancer_user::{
    compile::Limits,
    kernel::{self, Datapath, KernelError, Lock, PublishOptions},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

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

/// A BPF file system of its own, and a pin directory to be in it. The name has the form that the
/// harness sweeps when a process could not clean up.
pub(crate) struct Bed {
    home: PathBuf,
    dir: PathBuf,
}

impl Bed {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(format!("/run/balancer-{}-{n}-bed", std::process::id()));
        let bpffs = home.join("bpffs");
        fs::create_dir_all(&bpffs).expect("directory to mount on");
        mount(Some("bed"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).expect("bpffs");
        Self { dir: bpffs.join("balancer"), home }
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
        self.unload();
        if let Err(e) = umount2(&self.home.join("bpffs"), MntFlags::MNT_DETACH) {
            return eprintln!("{} stays mounted: {e}", self.home.display());
        }
        if let Err(e) = fs::remove_dir_all(&self.home) {
            eprintln!("{} stays: {e}", self.home.display());
        }
    }
}

impl Bed {
    fn unload(&self) {
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
