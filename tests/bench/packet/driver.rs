//! The driver object: sends packets of many flows to one program.

use std::{env, fs};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions},
};

use crate::{frames::Packet, step::Step};

/// Names in the object.
pub(crate) mod names {
    /// `array[1]` of [`Step`](crate::step::Step) as words.
    pub(crate) const STEP: &str = "STEP";
    /// Program array: what to measure.
    pub(crate) const TARGETS: &str = "TARGETS";
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
    /// Loads the driver and shows it the two programs.
    pub(crate) fn load(ingress: &ProgramFd, egress: &ProgramFd) -> Result<Self> {
        let file = env::var_os(OBJECT).with_context(|| {
            format!("{OBJECT} names no driver object; `cargo xtask bench packet` builds it")
        })?;
        let object = fs::read(&file).with_context(|| format!("{OBJECT}={}", file.display()))?;
        let mut ebpf = EbpfLoader::new().btf(None).load(&object)?;
        for name in [
            names::NOTHING,
            names::FROM_CLIENTS4,
            names::FROM_CLIENTS6,
            names::TO_CLIENTS4,
            names::TO_CLIENTS6,
        ] {
            program(&mut ebpf, name)?.load()?;
        }
        let nothing = program(&mut ebpf, names::NOTHING)?.fd()?.try_clone()?;
        let targets = ebpf.map_mut(names::TARGETS).context("the driver has no TARGETS")?;
        let mut targets = ProgramArray::try_from(targets)?;
        targets.set(Target::Nothing as u32, &nothing, 0)?;
        targets.set(Target::Ingress as u32, ingress, 0)?;
        targets.set(Target::Egress as u32, egress, 0)?;
        Ok(Self(ebpf))
    }

    /// Sends `repeat` packets like `packet`, of `flows` flows in turn; nanoseconds for each.
    pub(crate) fn run(
        &mut self,
        packet: &Packet,
        flows: u32,
        target: Target,
        repeat: u32,
    ) -> Result<f64> {
        let (multiplier, increment) = packet.order.factors();
        let (mask, target) = (flows - 1, target as u32);
        let step = Step { mask, multiplier, increment, target, ..packet.step() };
        let map = self.0.map_mut(names::STEP).context("the driver has no STEP")?;
        let mut map: Array<_, [u32; STEP_WORDS]> = Array::try_from(map)?;
        let words: [u32; STEP_WORDS] = zerocopy::transmute!(step);
        map.set(0, words, 0)?;
        let frame = packet.frame()?;
        let result = program(&mut self.0, packet.program())?.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat,
            ..TestRunOptions::default()
        })?;
        // TC_ACT_UNSPEC, of the empty program and of every translation.
        ensure!(
            result.return_value == u32::MAX,
            "the last packet's verdict is {}, not \"go on\"",
            result.return_value as i32
        );
        Ok(result.duration.as_nanos() as f64)
    }
}

/// A program by its name.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
