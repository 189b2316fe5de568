//! The first process of a guest that `cargo xtask test vm` boots: makes the machine usable, runs
//! the jobs of the [plan](plan), says how each ended, and powers off.
//!
//! It has the machine to itself: there is no init system, no shell and no other user. What goes
//! wrong here is one line on the serial port of the results, and no `guest: done`.

mod plan;

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
        utsname::uname,
    },
    unistd::{Pid, getpid, sync},
};
use plan::{End, Job, Line, PLAN, Plan};

/// The serial port for what jobs print and for the guest's own lines. The kernel's console is the
/// other one, so that its messages never cut into a line.
const RESULTS: &str = "/dev/ttyS1";
/// Where programs are looked for; the initramfs keeps the paths that they have on the host.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often a running job is looked at.
const TICK: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    if getpid() != Pid::from_raw(1) {
        // On anybody's own machine this would mount, kill and power off.
        bail!("this is the first process of a guest; `cargo xtask test vm` boots one");
    }
    mounted("devtmpfs", "/dev")?;
    let port = File::options().write(true).open(RESULTS);
    let port = Port(Mutex::new(port.with_context(|| format!("cannot open {RESULTS}"))?));
    if let Err(e) = work(&port) {
        port.say(&format!("guest: error: {e:#}"))?;
    }
    sync();
    match reboot(RebootMode::RB_POWER_OFF)? {}
}

/// The serial port. Lines of several writers stay whole.
struct Port(Mutex<File>);

impl Port {
    fn say(&self, line: &str) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.write_all(format!("{line}\n").as_bytes())
    }
}

fn work(port: &Port) -> Result<()> {
    for (kind, path) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        mounted(kind, path)?;
    }
    // No mount there: the repository may lie below it.
    fs::create_dir_all("/tmp")?;
    let name = uname()?;
    port.say(&Line::Kernel(name.release().to_string_lossy().into_owned()).to_string())?;

    let text = fs::read(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    let plan: Plan = serde_json::from_slice(&text).with_context(|| format!("{PLAN} is damaged"))?;
    for module in &plan.modules {
        load(module).with_context(|| format!("cannot load {}", module.display()))?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", SEARCH).status();
    let up = up.context("cannot run ip")?;
    if !up.success() {
        bail!("`ip link set lo up` failed: {up}");
    }
    for job in &plan.jobs {
        port.say(&Line::Begin(job.name.clone()).to_string())?;
        let begun = Instant::now();
        let end = run(job, port).with_context(|| format!("job {}", job.name))?;
        let seconds = begun.elapsed().as_secs_f64();
        port.say(&Line::End { job: job.name.clone(), end, seconds }.to_string())?;
    }
    port.say(&Line::Done.to_string())?;
    Ok(())
}

fn mounted(kind: &str, path: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
    match mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>) {
        // The kernel mounts devtmpfs by itself where it is built so.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("cannot mount {kind} on {path}")),
    }
}

fn load(module: &Path) -> Result<()> {
    let file = File::open(module)?;
    match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Runs one job to its end or its limit, and leaves no process behind.
fn run(job: &Job, port: &Port) -> Result<End> {
    fs::create_dir_all(&job.directory)?;
    let mut child = Command::new(&job.program)
        .args(&job.args)
        .env_clear()
        .envs([("PATH", SEARCH), ("HOME", "/root")])
        .envs(job.env.iter().map(|(key, value)| (key, value)))
        .current_dir(&job.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", job.program.display()))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let stderr = child.stderr.take().context("no stderr")?;
    thread::scope(|scope| {
        let relays =
            [scope.spawn(move || relay(stdout, port)), scope.spawn(move || relay(stderr, port))];
        let status = wait(&mut child, Duration::from_secs(job.limit_s));
        // Everything else in this machine: what the job left would hold its output open and
        // disturb the next one.
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e).context("cannot kill what the job left"),
        }
        let end = match status? {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => End::Exit(code),
                (None, signal) => End::Signal(signal.unwrap_or_default()),
            },
            None => {
                child.wait()?;
                End::Limit
            }
        };
        for relay in relays {
            relay.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(end)
    })
}

/// The job's status, or `None` at its limit.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(TICK);
    }
    Ok(None)
}

/// Passes on each line, whole.
fn relay(from: impl Read, port: &Port) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        port.say(String::from_utf8_lossy(&line).trim_end_matches('\n'))?;
        line.clear();
    }
    Ok(())
}
