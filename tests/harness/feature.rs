//! What a kernel may lack, because it is older than the feature and for no other reason.

use std::{fmt, fs, io::Write as _, panic::Location, thread};

use aya::programs::{SchedClassifier, TcAttachType};

/// Something that tests rely on and that Linux 6.1, the oldest supported kernel, does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// BPF links on an interface's ingress and egress.
    Tcx,
}

/// Major and minor number of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
        }
    }

    /// The first kernel that has it.
    fn first(self) -> Version {
        match self {
            // Commit e420bed02507.
            Self::Tcx => Version(6, 6),
        }
    }

    /// Tries it: distributions take features over to older kernels.
    fn probe(self) -> Result<(), String> {
        match self {
            Self::Tcx => SchedClassifier::query_tcx("lo", TcAttachType::Ingress)
                .map(drop)
                .map_err(|e| format!("asking for the programs of lo's tcx hook: {e}")),
        }
    }

    /// Whether the running kernel has it: for tests that are right with it and without.
    ///
    /// # Panics
    /// Where the kernel does not have it and is new enough.
    pub fn is_here(self) -> bool {
        let release = release();
        self.judge(&release, self.probe()).unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// Whether a kernel of this release has it, given how the probe went; an error where it
    /// should and does not.
    fn judge(self, release: &str, probe: Result<(), String>) -> Result<bool, String> {
        let Err(reason) = probe else { return Ok(true) };
        let running = version(release)?;
        if running < self.first() {
            return Ok(false);
        }
        let (name, first) = (self.name(), self.first());
        Err(format!("Linux has {name} since {first}, and this is {release}: {reason}"))
    }

    fn skipped(self, test: &str, release: &str) -> String {
        format!(
            "skipped: {test} needs {} (Linux {}), this is {release}\n",
            self.name(),
            self.first()
        )
    }
}

/// For the first lines of a test that makes no sense without `feature`: whether to go on. If
/// not, one line on stderr says so.
///
/// # Panics
/// Where the kernel lacks the feature although it is new enough: that is a failure, never a
/// skip.
#[track_caller]
pub fn since(feature: Feature) -> bool {
    let here = feature.is_here();
    if !here {
        let place = Location::caller();
        // The runner names a test's thread after it, unless it runs one test at a time.
        let test = match thread::current().name() {
            Some(name) if name != "main" => name.to_owned(),
            _ => format!("the test at {}:{}", place.file(), place.line()),
        };
        let line = feature.skipped(&test, &release());
        // Past the test runner's capture: nobody reads the output of a test that passed.
        std::io::stderr().write_all(line.as_bytes()).expect("stderr is writable");
    }
    here
}

/// The running kernel, as `uname -r` has it.
fn release() -> String {
    let file = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("cannot read {file}: {e}"));
    text.trim().to_owned()
}

/// The first two numbers of a release such as `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> Result<Version, String> {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(Version(major, minor)),
        _ => Err(format!("the kernel's release {release:?} does not begin with two numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, Version, version};

    fn without(release: &str) -> Result<bool, String> {
        Feature::Tcx.judge(release, Err("EINVAL".into()))
    }

    #[test]
    fn only_a_kernel_older_than_the_feature_may_lack_it() {
        assert_eq!(without("6.1.0-56-cloud-amd64"), Ok(false));
        assert_eq!(without("5.15.0"), Ok(false));
        for release in ["6.6.0", "6.12.117+deb12-cloud-amd64", "6.18-rc1", "7.0.1"] {
            let broken = without(release).expect_err(release);
            assert!(broken.contains("tcx since 6.6") && broken.contains(release), "{broken}");
            assert!(broken.contains("EINVAL"), "{broken}");
        }
        // A distribution's kernel with the feature of a newer one.
        assert_eq!(Feature::Tcx.judge("6.1.0", Ok(())), Ok(true));
        assert!(without("linux").is_err(), "not knowing is no reason to skip");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Ok(Version(6, 12)));
        assert!(Version(6, 12) > Version(6, 6) && Version(5, 19) < Version(6, 1));
    }

    #[test]
    fn a_skip_names_the_test_the_feature_and_both_kernels() {
        assert_eq!(
            Feature::Tcx.skipped("attach::links_are_adopted", "6.1.0-56-cloud-amd64"),
            "skipped: attach::links_are_adopted needs tcx (Linux 6.6), this is \
             6.1.0-56-cloud-amd64\n"
        );
    }
}
