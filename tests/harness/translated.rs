//! A loaded program's instructions, as the verifier rewrote them.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info};

/// Reads the instructions of the program behind `fd`. What the machine runs is compiled from
/// these: dead code is gone from them.
///
/// # Errors
/// What `BPF_OBJ_GET_INFO_BY_FD` answers.
pub fn translated(fd: BorrowedFd<'_>) -> io::Result<Vec<bpf_insn>> {
    let length = info(fd, &mut [])?.xlated_prog_len as usize / size_of::<bpf_insn>();
    // SAFETY: any bytes are a valid instruction; zeros are one.
    let mut instructions = vec![unsafe { std::mem::zeroed::<bpf_insn>() }; length];
    info(fd, &mut instructions)?;
    Ok(instructions)
}

/// Asks for the program's description; its instructions go to `room`.
fn info(fd: BorrowedFd<'_>, room: &mut [bpf_insn]) -> io::Result<bpf_prog_info> {
    // SAFETY: plain numbers and unions of such, for which zeros are valid: "nothing asked for".
    let (mut info, mut attr) = unsafe { std::mem::zeroed::<(bpf_prog_info, bpf_attr)>() };
    info.xlated_prog_len = size_of_val(room) as u32;
    info.xlated_prog_insns = room.as_mut_ptr() as u64;
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of_val(&info) as u32;
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: `attr` is as long as said and points to `info`, which points to `room`; the kernel
    // writes no more than the lengths that stand in them, and all three outlive the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as i32,
            &raw mut attr,
            size_of_val(&attr),
        )
    };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}
