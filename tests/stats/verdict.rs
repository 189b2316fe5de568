//! The verifier's log of a program that it accepts.

use anyhow::{Context, Result, bail};
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// What only the log tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Bytes of stack of each function, in the order in which they are laid out.
    pub(crate) frames: Vec<u32>,
    /// States that the verifier kept at one time.
    pub(crate) peak_states: u32,
}

/// Lets the verifier judge `program` of `object`, with the sizes that are in the object.
///
/// aya hands the log out only where loading fails. The kernel verifies first and makes the
/// descriptor last, so a load while no descriptor may be made fails with the log of an accepted
/// program.
pub(crate) fn of(object: &[u8], program: &str) -> Result<Verdict> {
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(object)
        .context("loading the object")?;
    let loaded = ebpf
        .program_mut(program)
        .with_context(|| format!("the object has no program {program}"))?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).context("setrlimit")?;
    let outcome = match loaded {
        Program::SchedClassifier(classifier) => classifier.load(),
        Program::Xdp(xdp) => xdp.load(),
        _ => bail!("{program} is of no known kind"),
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).context("setrlimit")?;
    match outcome {
        Err(ProgramError::LoadError { io_error, verifier_log })
            if io_error.raw_os_error() == Some(Errno::EMFILE as i32) =>
        {
            let log = verifier_log.to_string();
            parse(&log).with_context(|| {
                format!("the verifier's statistics of {program} are not as expected:\n{log}")
            })
        }
        Err(error) => Err(error).with_context(|| format!("verifying {program}")),
        Ok(()) => bail!("{program} was loaded although no descriptor could be made"),
    }
}

/// Reads the lines `stack depth A+B+C` and `processed N insns … peak_states P …`
/// (`kernel/bpf/verifier.c`, `print_verification_stats`).
fn parse(log: &str) -> Option<Verdict> {
    let after = |line: &str, word: &str| {
        let rest = line.split_once(word)?.1.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '+').unwrap_or(rest.len());
        Some(rest[..end].to_owned())
    };
    let frames = log.lines().find_map(|line| after(line, "stack depth "))?;
    let states = log.lines().find_map(|line| after(line, " peak_states "))?;
    Some(Verdict {
        frames: frames.split('+').map(|frame| frame.parse().ok()).collect::<Option<_>>()?,
        peak_states: states.parse().ok()?,
    })
}
