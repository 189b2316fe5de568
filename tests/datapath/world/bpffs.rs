//! A file system for pins.

use std::path::Path;

/// A bpffs of this test's own; unmounting it drops what is pinned there.
pub(super) struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub(super) fn mount() -> Self {
        let prefix = format!("balancer-datapath-{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a directory");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("bpf"), dir.path(), Some("bpf"), flags, None::<&str>)
            .expect("root may mount a bpffs");
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let unmounted = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
        if !std::thread::panicking() {
            unmounted.expect("mounted a moment ago");
        }
    }
}
