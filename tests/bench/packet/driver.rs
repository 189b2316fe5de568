//! The driver object: sends packets of many flows to one program.

use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{Program, ProgramFd, TestRun as _, TestRunOptions, TestRunResult},
};

use crate::{frames::Packet, step::Step};

/// Names in the object.
pub(crate) mod names {
    /// `array[1]` of [`Step`](crate::step::Step) as words.
    pub(crate) const STEP: &str = "STEP";
    /// Program array: what to measure.
    pub(crate) const TARGETS: &str = "TARGETS";
    /// The same for XDP.
    pub(crate) const XDP_TARGETS: &str = "XDP_TARGETS";
    /// The XDP program that does nothing.
    pub(crate) const XDP_NOTHING: &str = "nothing_xdp";
    /// What the names of XDP programs add to those of TC.
    pub(crate) const XDP_SUFFIX: &str = "_xdp";
    /// The program that does nothing.
    pub(crate) const NOTHING: &str = "nothing";
    /// Sends packets of many clients, IPv4.
    pub(crate) const FROM_CLIENTS4: &str = "from_clients4";
    /// The same, IPv6.
    pub(crate) const FROM_CLIENTS6: &str = "from_clients6";
    /// Sends packets to many clients, IPv4.
    pub(crate) const TO_CLIENTS4: &str = "to_clients4";
    /// The same, IPv6.
    pub(crate) const TO_CLIENTS6: &str = "to_clients6";
}

/// Words in a [`Step`].
const STEP_WORDS: usize = size_of::<Step>() / 4;

const OBJECT: &str = "BALANCER_BENCH_DRIVER";

/// What the driver goes on with; the index in its program array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing: what is to be subtracted.
    Nothing = 0,
    /// The ingress program.
    Ingress = 1,
    /// The egress program.
    Egress = 2,
    /// The XDP program.
    Edge = 3,
}

/// In which order the flows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One port after the other: the elements of the flow table, not its buckets, lie in memory
    /// in this order, and the processor reads ahead.
    Counted,
    /// By a linear congruential generator, which meets each flow once before it comes back to
    /// the first (modulus a power of two, increment odd, multiplier 1 modulo 4: Knuth, The Art
    /// of Computer Programming 2, 3.2.1.2). Nothing can be read ahead.
    Shuffled,
}

impl Order {
    /// Multiplier and increment.
    fn factors(self) -> (u32, u32) {
        match self {
            Order::Counted => (1, 1),
            Order::Shuffled => (1_664_525, 1_013_904_223),
        }
    }
}

/// A loaded driver.
pub(crate) struct Driver(Ebpf);

impl Driver {
    /// Loads the driver and shows it the programs.
    pub(crate) fn load(ingress: &ProgramFd, egress: &ProgramFd, edge: &ProgramFd) -> Result<Self> {
        let file = env::var_os(OBJECT).with_context(|| {
            format!("{OBJECT} names no driver object; `cargo xtask bench packet` builds it")
        })?;
        let object = fs::read(&file).with_context(|| format!("{OBJECT}={}", file.display()))?;
        let mut ebpf = EbpfLoader::new().btf(None).load(&object)?;
        for (_, program) in ebpf.programs_mut() {
            load(program)?;
        }
        let nothing = fd(&mut ebpf, names::NOTHING)?;
        let xdp_nothing = fd(&mut ebpf, names::XDP_NOTHING)?;
        let targets = ebpf.map_mut(names::TARGETS).context("the driver has no TARGETS")?;
        let mut targets = ProgramArray::try_from(targets)?;
        targets.set(Target::Nothing as u32, &nothing, 0)?;
        targets.set(Target::Ingress as u32, ingress, 0)?;
        targets.set(Target::Egress as u32, egress, 0)?;
        let targets = ebpf.map_mut(names::XDP_TARGETS).context("the driver has no XDP_TARGETS")?;
        let mut targets = ProgramArray::try_from(targets)?;
        targets.set(Target::Nothing as u32, &xdp_nothing, 0)?;
        targets.set(Target::Edge as u32, edge, 0)?;
        Ok(Self(ebpf))
    }

    /// Sends `repeat` packets like `packet`, of `flows` flows in turn; nanoseconds for each.
    pub(crate) fn run(
        &mut self,
        packet: &Packet,
        flows: u32,
        target: Target,
        repeat: u32,
        verdict: u32,
    ) -> Result<f64> {
        let (multiplier, increment) = packet.order.factors();
        let (mask, target) = (flows - 1, target as u32);
        let step = Step { mask, multiplier, increment, target, ..packet.step() };
        let map = self.0.map_mut(names::STEP).context("the driver has no STEP")?;
        let mut map: Array<_, [u32; STEP_WORDS]> = Array::try_from(map)?;
        let words: [u32; STEP_WORDS] = zerocopy::transmute!(step);
        map.set(0, words, 0)?;
        let frame = packet.frame()?;
        let options = TestRunOptions { data_in: Some(&frame), repeat, ..TestRunOptions::default() };
        let result = test_run(program(&mut self.0, &packet.program())?, options)?;
        ensure!(
            result.return_value == verdict,
            "the last packet's verdict is {}, not {}",
            result.return_value as i32,
            verdict as i32
        );
        Ok(result.duration.as_nanos() as f64)
    }
}

/// A program by its name.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program {name}"))
}

/// The descriptor of a loaded program.
pub(crate) fn fd(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    Ok(program(ebpf, name)?.fd()?.try_clone()?)
}

/// Loads a program of either kind.
pub(crate) fn load(program: &mut Program) -> Result<()> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        other => bail!("a program of another kind: {other:?}"),
    }
    Ok(())
}

/// Test-runs a program of either kind.
pub(crate) fn test_run(
    program: &mut Program,
    options: TestRunOptions<'_>,
) -> Result<TestRunResult> {
    Ok(match program {
        Program::SchedClassifier(program) => program.test_run(options)?,
        Program::Xdp(program) => program.test_run(options)?,
        other => bail!("a program of another kind: {other:?}"),
    })
}
