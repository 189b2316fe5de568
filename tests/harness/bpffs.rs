//! A BPF file system of one's own.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{instance::HOME, netns::unique_name, privileges::Root};

/// A BPF file system, unmounted when this is dropped: that drops every pin in it at once.
#[derive(Debug)]
pub struct Bpffs {
    home: PathBuf,
}

impl Bpffs {
    /// Mounts one. `purpose` becomes part of its name.
    pub fn mount(_: Root, purpose: &str) -> Result<Self> {
        let name = unique_name(purpose);
        let home = PathBuf::from(HOME).join(&name);
        let at = home.join("bpffs");
        fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
        mount(Some(name.as_str()), &at, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount a bpffs at {}", at.display()))?;
        Ok(Self { home })
    }

    /// The argument of `--bpffs`: a directory in it that does not exist yet.
    pub fn pins(&self) -> PathBuf {
        self.home.join("bpffs").join("balancer")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let unmounted = umount2(&self.home.join("bpffs"), MntFlags::MNT_DETACH);
        if let Err(e) = unmounted.map_err(Into::into).and_then(|()| fs::remove_dir_all(&self.home))
        {
            eprintln!("warning: {} is left behind: {e}", self.home.display());
        }
    }
}
