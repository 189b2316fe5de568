//! A program that the verifier refuses.

use aya::Ebpf;
use balancer_user::kernel::{Datapath, KernelError, Rejection, SourceLine, object};
use harness::root_or_skip;

use super::bed::{Bed, small};

/// The object with the first instruction of the function replaced by a read through a register
/// that nothing was written to.
fn broken(function: &str) -> Vec<u8> {
    let mut object = object::datapath().expect("object").to_vec();
    let at = start_of(&object, function);
    // r0 = *(u32 *)(r9 + 0)
    object[at..at + 8].copy_from_slice(&[0x61, 0x90, 0, 0, 0, 0, 0, 0]);
    object
}

/// Where the instructions of the first function whose name contains `function` begin in the file
/// (ELF64: section headers, symbol table).
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
    const FUNCTION: u8 = 2;
    let symbols = (0..count).map(section).find(|s| s.0 == SYMBOLS).expect("symbol table");
    let names = section(symbols.3).1;
    (symbols.1..symbols.1 + symbols.2)
        .step_by(24)
        .find(|&at| {
            let name = names + word(at, 4);
            let name = object[name..].split(|b| *b == 0).next().expect("a string ends");
            object[at + 4] & 15 == FUNCTION
                && name.windows(function.len()).any(|w| w == function.as_bytes())
        })
        .map(|at| section(word(at + 6, 2)).1 + word(at + 8, 8))
        .expect("the function's symbol")
}

/// Loads the object, which is well formed, and returns what is said of its program.
fn refused(bed: &Bed, object: &[u8]) -> (String, Box<Rejection>) {
    Ebpf::load(object).expect("the object itself is well formed");
    let error = Datapath::create_from_object(&bed.lock(), &small(), object).expect_err("refused");
    let text = error.to_string();
    let KernelError::Rejected(rejection) = error else { panic!("{text}") };
    assert!(text.contains("R9 !read_ok"), "{text}");
    // Every kernel that we load on, also those whose log has no lines.
    let origin = rejection.origin.as_ref().unwrap_or_else(|| panic!("no source line: {text}"));
    assert!(text.contains(&format!("at {}:{} ", origin.line.file, origin.line.line)), "{text}");
    (text, rejection)
}

/// Asserts that the line lies in the function of `file` whose text begins with `item`, or in its
/// attributes.
#[track_caller]
fn assert_inside(line: &SourceLine, file: &str, source: &str, item: &str) {
    let lines: Vec<&str> = source.lines().collect();
    let head = lines.iter().position(|line| line.starts_with(item)).expect(item);
    let attributes = lines[..head].iter().rev().take_while(|line| line.starts_with("#[")).count();
    let length = lines[head..].iter().position(|line| *line == "}").expect("its end");
    // Lines are counted from 1.
    let function = head + 1 - attributes..=head + 1 + length;
    assert_eq!(line.file, file);
    assert!(function.contains(&(line.line as usize)), "{line} is not in {item}, {function:?}");
}

#[test]
fn refused_program_is_reported_with_its_line_its_last_lines_and_the_whole_log_in_a_file() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let (text, rejection) = refused(&bed, &broken("balancer_in"));
    assert_eq!(rejection.program, "balancer_in");
    assert_eq!(rejection.instruction, Some(0), "the first of the program");
    // Which function's line that is depends on what was inlined there.
    let line = &rejection.origin.as_ref().expect("checked").line;
    assert!(line.file.starts_with("balancer-ebpf/src/bin/datapath/"), "{text}");
    let path = rejection.log_file.as_ref().expect("log file");
    let log = std::fs::read_to_string(path).expect("log");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(log.contains("R9 !read_ok") && log.lines().count() > rejection.telling.len());
    std::fs::remove_file(path).expect("remove the log");
    // Nothing is left of the attempt, and the next one works.
    assert!(!bed.dir().join("maps").exists());
    bed.create(&small());
}

#[test]
fn refused_instruction_of_a_called_function_is_reported_with_the_line_of_that_function() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let (text, rejection) = refused(&bed, &broken("5stray13hashed_target"));
    assert!(rejection.instruction > Some(100), "behind the program itself: {text}");
    assert_inside(
        &rejection.origin.as_ref().expect("checked").line,
        "balancer-ebpf/src/bin/datapath/stray.rs",
        include_str!("../../balancer-ebpf/src/bin/datapath/stray.rs"),
        "fn hashed_target<",
    );
    std::fs::remove_file(rejection.log_file.as_ref().expect("log file")).expect("remove the log");
}
