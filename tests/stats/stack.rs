//! How deep the stack gets: functions call functions, and each has a frame.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aya_obj::generated::bpf_insn;

/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD_WORD: u8 = 0x18;
/// Source register of a call of a function of the program itself.
const PSEUDO_CALL: u8 = 1;
/// Source register of the address of such a function, for a helper to call.
const PSEUDO_FUNC: u8 = 4;
/// Bytes to which a frame is rounded up (`kernel/bpf/verifier.c`, `check_max_stack_depth`; newer
/// kernels with a JIT round less: the figure is the strictest).
const ROUND: u32 = 32;

/// Bytes of the deepest chain of calls. `instructions`: the program as the verifier rewrote it;
/// `frames`: those of its functions by address, as the verifier says them.
pub(crate) fn deepest(instructions: &[bpf_insn], frames: &[u32]) -> Result<u32> {
    let calls = calls(instructions);
    let starts: Vec<usize> =
        calls.iter().map(|(_, to)| *to).chain([0]).collect::<BTreeSet<_>>().into_iter().collect();
    ensure!(
        starts.len() == frames.len(),
        "the verifier's log has {} functions, the program's calls lead to {}",
        frames.len(),
        starts.len()
    );
    Ok(chain(&starts, frames, &calls, 0))
}

/// Where each call is, and where it goes. A loaded program has the distance of a call in `off`,
/// since the number of the function took its place in `imm` (`kernel/bpf/verifier.c`,
/// `jit_subprogs`).
fn calls(instructions: &[bpf_insn]) -> Vec<(usize, usize)> {
    let distance = |i: &bpf_insn| match (i.code, i.src_reg()) {
        (CALL, PSEUDO_CALL) => Some(i.off as isize),
        (LOAD_WORD, PSEUDO_FUNC) => Some(i.imm as isize),
        _ => None,
    };
    let calls = instructions.iter().enumerate();
    calls.filter_map(|(at, i)| Some((at, at.checked_add_signed(distance(i)? + 1)?))).collect()
}

/// Depth of the function `index` with all that it calls. The verifier has refused recursion.
fn chain(starts: &[usize], frames: &[u32], calls: &[(usize, usize)], index: usize) -> u32 {
    let end = starts.get(index + 1).copied().unwrap_or(usize::MAX);
    let inside = calls.iter().filter(|(at, _)| (starts[index]..end).contains(at));
    let deepest = inside
        .filter_map(|(_, to)| starts.binary_search(to).ok())
        .map(|called| chain(starts, frames, calls, called))
        .max();
    frames[index].max(1).next_multiple_of(ROUND) + deepest.unwrap_or(0)
}
