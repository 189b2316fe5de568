//! Debian's cloud kernels: found by the name of a meta package, which stays while the names of
//! the kernels change with each update, and kept unpacked in the user's cache.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::tool;
use crate::{run, setup::cache};

/// How many kernels of a series stay: the newest, and the one before, which another run may be
/// booting at the moment.
const KEPT: usize = 2;

/// A kernel that users run, by the numbers that do not change while Debian cares for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Series {
    /// Debian 12.
    V6_1,
    /// Debian 13.
    V6_12,
}

impl Series {
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Packages that depend on the newest kernel of the series, on one Debian or another.
    fn metas(self) -> &'static [&'static str] {
        match self {
            Self::V6_1 => &["linux-image-cloud-amd64", "linux-image-6.1-cloud-amd64"],
            Self::V6_12 => &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"],
        }
    }

    /// Which archives have it.
    fn archives(self) -> &'static str {
        match self {
            Self::V6_1 => "Debian 12 (bookworm and bookworm-security)",
            Self::V6_12 => "Debian 13 (trixie) and the security archive of Debian 12",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|series| series.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(" and ");
            let own = nix::sys::utsname::uname().map_or_else(
                |_| String::new(),
                |name| format!(" ({})", name.release().to_string_lossy()),
            );
            format!(
                "guests run {known}; this machine's own kernel{own} is what \
                 `cargo xtask test datapath` and the other suites run on"
            )
        })
    }
}

/// A kernel package, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(super) directory: PathBuf,
    /// As `uname -r` says it.
    pub(super) release: String,
}

impl Kernel {
    /// What lies in `directory`, if it is a kernel of `series`.
    fn at(directory: &Path, series: Series) -> Option<Self> {
        let start = format!("vmlinuz-{series}.");
        let name = fs::read_dir(directory.join("boot")).ok()?.flatten().find_map(|entry| {
            entry.file_name().into_string().ok().filter(|name| name.starts_with(&start))
        })?;
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        Some(Self { directory: directory.to_owned(), release })
    }

    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Orders releases as people do: `6.1.0-9` before `6.1.0-56`.
    fn age(&self) -> Vec<u64> {
        let numbers = self.release.split(|c: char| !c.is_ascii_digit());
        numbers.filter_map(|digits| digits.parse().ok()).collect()
    }
}

/// Why there is no kernel from the archive.
enum Lack {
    /// The lists do not have it, or name a file that is gone: newer lists may help.
    Lists(anyhow::Error),
    Other(anyhow::Error),
}

impl Lack {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Lists(e) | Self::Other(e) => e,
        }
    }
}

/// The newest kernel of the series that the archive has; where it cannot be asked, the newest in
/// the cache, after a line that says so.
pub(crate) fn find(series: Series) -> Result<Kernel> {
    let home = cache().map_err(|e| anyhow!("{e}"))?.join("kernels");
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    sweep(&home);
    let cached = cached(&home, series);
    let mut found = newest(&home, series);
    // Asking the archive for lists takes a while: not where a kernel is at hand and the lists
    // simply have none of the series.
    let worthwhile = match &found {
        Err(Lack::Lists(e)) => cached.is_empty() || gone(e),
        _ => false,
    };
    if worthwhile && nix::unistd::geteuid().is_root() {
        let lists = run::run(Command::new("apt-get").args(["update", "--quiet"]));
        found = lists.map_err(Lack::Other).and_then(|()| newest(&home, series));
    }
    let why = match found {
        Ok(kernel) => {
            bound(&home, series);
            return Ok(kernel);
        }
        Err(why) => why.into_error(),
    };
    match cached.into_iter().next_back() {
        Some(kernel) => {
            eprintln!("kernel {series}: taking {} from the cache: {why:#}", kernel.release);
            Ok(kernel)
        }
        None => Err(anyhow!(
            "no kernel {series} to boot: {why:#}\nnone is in the cache either; what helps:\n\
             - a network, and `apt-get update` as root\n\
             - an archive that has it, named in /etc/apt: {}\n\
             - the package linux-image-{series}.*-cloud-amd64 from elsewhere, unpacked by \
             `dpkg -x FILE.deb {}`",
            series.archives(),
            home.join(format!("{series}-by-hand")).display()
        )),
    }
}

/// What is in the cache, the newest last.
fn cached(home: &Path, series: Series) -> Vec<Kernel> {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let mut kernels: Vec<_> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| Kernel::at(&entry.path(), series))
        .collect();
    kernels.sort_by_key(|kernel| (kernel.age(), kernel.directory.clone()));
    kernels
}

/// Asks apt which package is the newest, and fetches it unless it is there.
fn newest(home: &Path, series: Series) -> Result<Kernel, Lack> {
    let apt = tool("apt-cache", "apt").map_err(Lack::Other)?;
    let start = format!("linux-image-{series}.");
    let package = series.metas().iter().find_map(|meta| {
        // A meta package that these lists do not have makes apt-cache fail: the next may be there.
        let depends = run::ask(Command::new(&apt).args(["depends", meta])).ok()?;
        let mut words = depends.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
        words.find(|package| package.starts_with(&start)).map(str::to_owned)
    });
    let package = package.ok_or_else(|| {
        let metas = series.metas().join(" and ");
        Lack::Lists(anyhow!("apt knows no {start}* by {metas}"))
    })?;
    let shown = run::ask(Command::new(&apt).args(["show", "--no-all-versions", &package]))
        .map_err(Lack::Lists)?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
    let version =
        version.ok_or_else(|| Lack::Other(anyhow!("`apt-cache show {package}` has no version")))?;
    let target = home.join(format!("{package}_{version}"));
    if Kernel::at(&target, series).is_none() {
        fetch(&package, &target)
            .map_err(|e| if gone(&e) { Lack::Lists(e) } else { Lack::Other(e) })?;
    }
    Kernel::at(&target, series)
        .ok_or_else(|| Lack::Other(anyhow!("{} has no kernel {series}", target.display())))
}

/// Whether the lists name a file that the archive no longer has.
fn gone(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("404")
}

/// Downloads and unpacks `package` beside `target`, and moves it there when it is whole.
fn fetch(package: &str, target: &Path) -> Result<()> {
    let apt = tool("apt-get", "apt")?;
    let dpkg = tool("dpkg", "dpkg")?;
    let home = target.parent().context("a cache without a directory")?;
    let work = home.join(format!(".{}-{package}", std::process::id()));
    let work = Removed(work);
    fs::create_dir(&work.0).with_context(|| format!("cannot create {}", work.0.display()))?;
    eprintln!("kernel: fetching {package}");
    let mut download = Command::new(apt);
    download.args(["download", "--quiet=2", package]).current_dir(&work.0);
    // A network that swallows packets would otherwise hold this up for minutes.
    download.args(["-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1"]);
    if nix::unistd::geteuid().is_root() {
        // apt would fetch as its own user, who may not write here.
        download.args(["-o", "APT::Sandbox::User=root"]);
    }
    run::ask(&mut download)?;
    let package = fs::read_dir(&work.0)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .with_context(|| format!("apt-get download left no {package}_*.deb"))?;
    let tree = work.0.join("tree");
    run::ask(Command::new(dpkg).arg("-x").arg(package).arg(&tree))?;
    match fs::rename(&tree, target) {
        // Another run was faster.
        Err(_) if target.join("boot").is_dir() => Ok(()),
        moved => moved.with_context(|| format!("cannot move {} in place", target.display())),
    }
}

/// A directory that is removed when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("warning: cannot remove {}: {e}", directory.display());
        }
        _ => {}
    }
}

/// Removes downloads whose process was killed.
fn sweep(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix('.')?.split('-').next());
        let dead = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
        if pid.and_then(|pid| pid.parse().ok()).is_some_and(dead) {
            remove(&entry.path());
        }
    }
}

/// Removes all but the newest packages of the series. What people unpacked themselves stays.
fn bound(home: &Path, series: Series) {
    let mut kernels = cached(home, series);
    kernels.retain(|kernel| {
        kernel.directory.file_name().is_some_and(|name| {
            name.to_string_lossy().starts_with(&format!("linux-image-{series}."))
        })
    });
    let surplus = kernels.len().saturating_sub(KEPT);
    for kernel in kernels.drain(..surplus) {
        remove(&kernel.directory);
    }
}

/// The machine that these kernels are for, which is what the test binaries must be for too.
pub(super) fn check_machine() -> Result<()> {
    let here = std::env::consts::ARCH;
    ensure!(
        here == "x86_64",
        "guests are x86_64 machines that run the test binaries of this one, which is {here}: \
         run this suite on x86_64"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(home: &Path, name: &str, release: &str) {
        let boot = home.join(name).join("boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join(format!("vmlinuz-{release}")), "").unwrap();
    }

    fn releases(home: &Path, series: Series) -> Vec<String> {
        cached(home, series).into_iter().map(|kernel| kernel.release).collect()
    }

    #[test]
    fn the_cache_is_in_the_order_of_releases_and_keeps_series_apart() {
        let home = tempfile::tempdir().unwrap();
        for release in ["6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64", "6.12.117+deb12-cloud-amd64"]
        {
            unpacked(home.path(), release, release);
        }
        unpacked(home.path(), ".123-half", "6.1.0-99-cloud-amd64");
        let (old, new) = ("6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64");
        assert_eq!(releases(home.path(), Series::V6_1), [old, new]);
        assert_eq!(releases(home.path(), Series::V6_12), ["6.12.117+deb12-cloud-amd64"]);
    }

    #[test]
    fn old_packages_go_and_what_people_unpacked_stays() {
        let home = tempfile::tempdir().unwrap();
        for n in 1..=4 {
            let release = format!("6.1.0-{n}-cloud-amd64");
            unpacked(home.path(), &format!("linux-image-{release}_6.1.{n}-1"), &release);
        }
        unpacked(home.path(), "6.1-by-hand", "6.1.0-0-cloud-amd64");
        bound(home.path(), Series::V6_1);
        let left = ["6.1.0-0-cloud-amd64", "6.1.0-3-cloud-amd64", "6.1.0-4-cloud-amd64"];
        assert_eq!(releases(home.path(), Series::V6_1), left);
    }

    #[test]
    fn downloads_of_dead_processes_are_swept() {
        let home = tempfile::tempdir().unwrap();
        let own = format!(".{}-linux-image", std::process::id());
        // Above the largest pid that Linux gives out.
        for name in [".4194305-linux-image", &own] {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        sweep(home.path());
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name().to_str(), Some(own.as_str()));
    }

    #[test]
    fn unknown_kernel_is_answered_with_the_known_ones_and_the_machines_own() {
        let words = "5.10".parse::<Series>().unwrap_err();
        assert!(words.contains("6.1 and 6.12"), "{words}");
        assert!(words.contains("cargo xtask test datapath"), "{words}");
    }
}
