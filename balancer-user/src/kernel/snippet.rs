//! Programs of a few instructions, loaded and dropped again: to read what only a program can
//! read, and to see what this kernel lets a program do.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use super::sys::bpf;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_BTF_LOAD: libc::c_int = 18;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `BPF_F_IPV6` of `bpf_l4_csum_replace`.
pub(crate) const IPV6_CHECKSUM_FLAG: u64 = 1 << 7;

/// Numbers of helpers (`enum bpf_func_id`, linux/bpf.h).
pub(crate) mod helper {
    pub(crate) const GET_PRANDOM_U32: i32 = 7;
    pub(crate) const SKB_STORE_BYTES: i32 = 9;
    pub(crate) const L4_CSUM_REPLACE: i32 = 11;
    pub(crate) const REDIRECT: i32 = 23;
    pub(crate) const CSUM_DIFF: i32 = 28;
    pub(crate) const SKB_CHANGE_TAIL: i32 = 38;
    pub(crate) const SKB_PULL_DATA: i32 = 39;
    pub(crate) const CSUM_UPDATE: i32 = 40;
    pub(crate) const JIFFIES64: i32 = 118;
    pub(crate) const KTIME_GET_COARSE_NS: i32 = 160;
    pub(crate) const LOOP: i32 = 181;
}

/// `struct bpf_insn` as a word (Documentation/bpf/standardization/instruction-set.rst), for
/// little-endian machines: those are what the eBPF object is built for.
pub(crate) const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

/// `to = value`.
pub(crate) const fn set(to: u8, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

/// `to = from`.
pub(crate) const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

/// `to += value`.
pub(crate) const fn add(to: u8, value: i32) -> u64 {
    instruction(0x07, to, 0, 0, value)
}

/// `to >>= bits`, zeros from the left.
const fn shift_right(to: u8, bits: i32) -> u64 {
    instruction(0x77, to, 0, 0, bits)
}

/// Calls a helper.
pub(crate) const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

pub(crate) const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
}

/// Loads a classifier.
pub(crate) fn load(program: &[u64]) -> io::Result<OwnedFd> {
    load_with(program, ProgramLoad::default())
}

fn load_with(program: &[u64], rest: ProgramLoad) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let mut load = ProgramLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: licence.as_ptr() as u64,
        ..rest
    };
    let fd = bpf(BPF_PROG_LOAD, &mut load)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Loads a classifier of two functions with type information for both; the second one, `static`,
/// begins at the instruction `second`.
pub(crate) fn load_two_functions(program: &[u64], second: u32) -> io::Result<OwnedFd> {
    let btf = load_btf(&two_functions())?;
    // `struct bpf_func_info`: first instruction and type of each function.
    let functions = [[0, FIRST_FUNCTION], [second, FIRST_FUNCTION + 1]];
    let described = ProgramLoad {
        prog_btf_fd: btf.as_raw_fd() as u32,
        func_info_rec_size: size_of_val(&functions[0]) as u32,
        func_info: functions.as_ptr() as u64,
        func_info_cnt: functions.len() as u32,
        ..ProgramLoad::default()
    };
    load_with(program, described)
}

/// Id of the first function in [`two_functions`].
const FIRST_FUNCTION: u32 = 3;

/// BTF of `int`, `int (void)`, and two static functions of that type
/// (Documentation/bpf/btf.rst).
fn two_functions() -> Vec<u8> {
    const STRINGS: &[u8; 16] = b"\0int\0main\0body\0\0";
    let kind = |kind: u32| kind << 24;
    let types = [
        [1, kind(1), 4].as_slice(),
        // Signed, 32 bits.
        &[1 << 24 | 32],
        &[0, kind(13), 1],
        &[5, kind(12), 2],
        &[10, kind(12), 2],
    ]
    .concat();
    let length = size_of_val(types.as_slice()) as u32;
    // Magic and version share the first word.
    let header = [0xeb9f | 1 << 16, 24, 0, length, length, STRINGS.len() as u32];
    let words = header.into_iter().chain(types);
    words.flat_map(u32::to_ne_bytes).chain(*STRINGS).collect()
}

#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    log_buf: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut load =
        BtfLoad { btf: btf.as_ptr() as u64, size: btf.len() as u32, ..BtfLoad::default() };
    let fd = bpf(BPF_BTF_LOAD, &mut load)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a loaded classifier once on a packet of zeros and returns what it returned.
pub(crate) fn run(program: BorrowedFd<'_>) -> io::Result<u32> {
    let packet = [0u8; 128];
    let mut run = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut run)?;
    Ok(run.retval)
}

#[repr(C)]
struct InfoGet {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info` (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
}

/// Whether the kernel compiled a loaded program to machine code.
pub(crate) fn is_compiled(program: BorrowedFd<'_>) -> io::Result<bool> {
    let mut info = ProgramInfo::default();
    let mut get = InfoGet {
        fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get)?;
    Ok(info.jited_len > 0)
}

fn load_and_run(program: &[u64]) -> io::Result<u32> {
    run(load(program)?.as_fd())
}

/// The kernel's jiffies, low 32 bits. User space cannot read them, a program of two
/// instructions can.
pub(crate) fn jiffies() -> io::Result<u32> {
    load_and_run(&[call(helper::JIFFIES64), EXIT])
}

/// The kernel's jiffies, all of them. What a program returns has 32 bits.
pub(crate) fn jiffies64() -> io::Result<u64> {
    let high = load(&[call(helper::JIFFIES64), shift_right(0, 32), EXIT])?;
    loop {
        let before = run(high.as_fd())?;
        let low = jiffies()?;
        if run(high.as_fd())? == before {
            return Ok(u64::from(before) << 32 | u64::from(low));
        }
    }
}

/// Whether `bpf_l4_csum_replace` knows `BPF_F_IPV6` (kernel commit ead7f9b8de65, 6.16 and
/// stable trees): an unknown flag gives `EINVAL`.
pub(crate) fn knows_ipv6_checksum_flag() -> io::Result<bool> {
    // The size of the field, BPF_F_PSEUDO_HDR and the flag in question.
    let flags = 4 | 1 << 4 | IPV6_CHECKSUM_FLAG as i32;
    let returned = load_and_run(&[
        set(2, 64),
        set(3, 0),
        set(4, 0),
        set(5, flags),
        call(helper::L4_CSUM_REPLACE),
        EXIT,
    ])?;
    match returned as i32 {
        0 => Ok(true),
        r if r == -libc::EINVAL => Ok(false),
        other => Err(io::Error::from_raw_os_error(-other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_information_has_the_lengths_that_its_header_says() {
        let btf = two_functions();
        let word =
            |at: usize| u32::from_ne_bytes(btf[4 * at..4 * at + 4].try_into().expect("four bytes"));
        assert_eq!(word(1) + word(4) + word(5), btf.len() as u32);
        assert_eq!(btf.last(), Some(&0), "the last string ends");
    }

    #[test]
    fn instructions_have_the_layout_of_the_kernel() {
        assert_eq!(set(3, -1), 0xffff_ffff_0000_03b7);
        assert_eq!(instruction(0xdb, 10, 1, -8, 1), 0x0000_0001_fff8_1adb);
    }
}
