//! A program that the verifier refuses.

use aya::Ebpf;
use balancer_user::kernel::{Datapath, KernelError, object};
use harness::root_or_skip;

use super::bed::{Bed, small};

/// The object with the first instruction of `balancer_in` replaced by a read through a register
/// that nothing was written to.
fn broken() -> Vec<u8> {
    let mut object = object::datapath().expect("object").to_vec();
    let at = start_of(&object, "balancer_in");
    // r0 = *(u32 *)(r9 + 0)
    object[at..at + 8].copy_from_slice(&[0x61, 0x90, 0, 0, 0, 0, 0, 0]);
    object
}

/// Where the function's instructions begin in the file (ELF64: section headers, symbol table).
fn start_of(object: &[u8], function: &str) -> usize {
    let word = |at: usize, n: usize| {
        object[at..at + n].iter().rev().fold(0usize, |v, b| v << 8 | usize::from(*b))
    };
    let (headers, size, count) = (word(0x28, 8), word(0x3a, 2), word(0x3c, 2));
    // Type, offset, length, link.
    let section = |i: usize| {
        let at = headers + i * size;
        (word(at + 4, 4), word(at + 24, 8), word(at + 32, 8), word(at + 40, 4))
    };
    const SYMBOLS: usize = 2;
    let symbols = (0..count).map(section).find(|s| s.0 == SYMBOLS).expect("symbol table");
    let names = section(symbols.3).1;
    (symbols.1..symbols.1 + symbols.2)
        .step_by(24)
        .find(|at| {
            let name = names + word(*at, 4);
            object[name..].starts_with(function.as_bytes()) && object[name + function.len()] == 0
        })
        .map(|at| section(word(at + 6, 2)).1 + word(at + 8, 8))
        .expect("the function's symbol")
}

#[test]
fn refused_program_is_reported_with_its_last_lines_and_the_whole_log_in_a_file() {
    let Some(_) = root_or_skip("kernel") else { return };
    let object = broken();
    Ebpf::load(&object).expect("the object itself is well formed");
    let bed = Bed::new();
    let error = Datapath::create_from_object(&bed.lock(), &small(), &object).expect_err("refused");
    let KernelError::Rejected(rejection) = &error else { panic!("{error}") };
    assert_eq!(rejection.program, "balancer_in");
    let text = error.to_string();
    assert!(text.contains("R9 !read_ok"), "{text}");
    let source = rejection.source_line.as_ref().expect("the object has line info");
    assert!(source.contains("main.rs"), "{source}");
    let path = rejection.log_file.as_ref().expect("log file");
    let log = std::fs::read_to_string(path).expect("log");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(log.contains("R9 !read_ok") && log.lines().count() > rejection.telling.len());
    std::fs::remove_file(path).expect("remove the log");
    // Nothing is left of the attempt, and the next one works.
    assert!(!bed.dir().join("maps").exists());
    bed.create(&small());
}
