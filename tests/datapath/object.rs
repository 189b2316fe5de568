//! The object itself, read as an ELF file: what a loader or an old kernel would stumble over.

use balancer_ebpf::abi::{map_names, program_names};
use balancer_user::kernel::object;

/// A section of an ELF file.
struct Section<'a> {
    name: &'a str,
    kind: u32,
    bytes: &'a [u8],
}

const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut value = [0; 8];
    value[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(value)
}

fn text(table: &[u8], at: usize) -> &str {
    let end = table[at..].iter().position(|b| *b == 0).expect("a string ends");
    std::str::from_utf8(&table[at..at + end]).expect("ASCII")
}

/// The sections of a 64-bit little-endian ELF file (System V gABI), and which are code.
fn sections(elf: &[u8]) -> Vec<(Section<'_>, bool)> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "64-bit, little-endian");
    let (table, count) = (number(elf, 0x28, 8) as usize, number(elf, 0x3c, 2) as usize);
    let names = number(elf, 0x3e, 2) as usize;
    let header = |i: usize| &elf[table + 64 * i..table + 64 * (i + 1)];
    let bytes = |i: usize| {
        let (at, len) = (number(header(i), 24, 8) as usize, number(header(i), 32, 8) as usize);
        if number(header(i), 4, 4) as u32 == SHT_NOBITS { &[][..] } else { &elf[at..at + len] }
    };
    let section = |i: usize| Section {
        name: text(bytes(names), number(header(i), 0, 4) as usize),
        kind: number(header(i), 4, 4) as u32,
        bytes: bytes(i),
    };
    let code = |i: usize| number(header(i), 8, 8) & SHF_EXECINSTR != 0;
    (0..count).map(|i| (section(i), code(i))).collect()
}

fn object() -> &'static [u8] {
    object::datapath().expect("built with the object")
}

/// Names of symbols.
fn symbols(elf: &[u8]) -> Vec<&str> {
    let sections = sections(elf);
    let symbols = &sections.iter().find(|(s, _)| s.kind == SHT_SYMTAB).expect("symbols").0;
    let names = &sections.iter().find(|(s, _)| s.name == ".strtab").expect("names").0;
    symbols.bytes.chunks(24).map(|entry| text(names.bytes, number(entry, 0, 4) as usize)).collect()
}

/// One instruction (RFC 9669, 3): opcode, registers, offset, immediate.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    opcode: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

fn instructions(code: &[u8]) -> Vec<Instruction> {
    code.chunks_exact(8)
        .map(|b| Instruction {
            opcode: b[0],
            dst: b[1] & 15,
            src: b[1] >> 4,
            offset: i16::from_le_bytes([b[2], b[3]]),
            imm: i32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect()
}

const ATOMIC: [u8; 2] = [0xc3, 0xdb];
const LOAD_64: u8 = 0x18;
const FETCH: i32 = 1;
const CALL: u8 = 0x85;

/// Whether the register's value is read before it is written, from instruction `at` on, on the
/// straight way; at a jump it counts as read.
fn read_before_written(code: &[Instruction], at: usize, register: u8) -> bool {
    let mut i = at;
    while let Some(instruction) = code.get(i) {
        let class = instruction.opcode & 7;
        match class {
            // Loads write the destination.
            0 | 1 => {
                if class == 1 && instruction.src == register {
                    return true;
                }
                if instruction.dst == register {
                    return false;
                }
                i += if instruction.opcode == LOAD_64 { 1 } else { 0 };
            }
            2 | 3 => {
                if instruction.dst == register || (class == 3 && instruction.src == register) {
                    return true;
                }
            }
            4 | 7 => {
                let from_register = instruction.opcode & 8 != 0;
                if from_register && instruction.src == register {
                    return true;
                }
                let is_move = instruction.opcode & 0xf0 == 0xb0;
                if instruction.dst == register {
                    return !is_move;
                }
            }
            // Calls take r1 to r5 and leave them undefined; exits return r0.
            _ if instruction.opcode == CALL => return (1..=5).contains(&register),
            _ => return true,
        }
        i += 1;
    }
    false
}

#[test]
fn no_atomic_addition_without_fetch_has_its_result_used() {
    let mut atomics = 0;
    for (section, code) in sections(object()) {
        if !code {
            continue;
        }
        let code = instructions(section.bytes);
        for (i, instruction) in code.iter().enumerate() {
            let wide_second_half = i > 0 && code[i - 1].opcode == LOAD_64;
            if wide_second_half || !ATOMIC.contains(&instruction.opcode) {
                continue;
            }
            atomics += 1;
            if instruction.imm & FETCH == 0 {
                // Without FETCH the source keeps the addend: whoever reads it meant the sum.
                assert!(
                    !read_before_written(&code, i + 1, instruction.src),
                    "{}: instruction {i} {instruction:?} adds without fetching, \
                     and its register is read",
                    section.name
                );
            }
        }
    }
    assert!(atomics > 0, "the scan finds the atomics that are known to be there");
}

#[test]
fn the_scan_for_atomics_sees_a_faulty_one() {
    let add = Instruction { opcode: 0xdb, dst: 1, src: 2, offset: 0, imm: 0 };
    let exit = Instruction { opcode: 0x95, dst: 0, src: 0, offset: 0, imm: 0 };
    let uses = Instruction { opcode: 0xbf, dst: 0, src: 2, offset: 0, imm: 0 };
    let overwrites = Instruction { opcode: 0xb7, dst: 2, src: 0, offset: 0, imm: 7 };
    assert!(read_before_written(&[add, uses, exit], 1, 2));
    assert!(!read_before_written(&[add, overwrites, uses, exit], 1, 2));
    assert_eq!(add.offset, 0);
}

#[test]
fn every_loader_can_read_the_object() {
    let sections = sections(object());
    let has = |name: &str| sections.iter().any(|(section, _)| section.name == name);
    assert!(has(".maps") && has(".BTF") && has(".BTF.ext"));
    assert!(!has("maps"), "legacy map definitions: libbpf refuses them");
    let license = &sections.iter().find(|(s, _)| s.name == "license").expect("a license").0;
    assert_eq!(license.bytes, b"Dual MIT/GPL\0");
    let names = symbols(object());
    for name in map_names::ALL {
        assert!(names.contains(name), "no map {name}");
    }
    for name in program_names::ALL {
        assert!(names.contains(name), "no program {name}");
    }
    assert!(!names.iter().any(|name| name.contains("AYA_LOG")), "aya-log's map is a legacy one");
}

#[test]
fn the_object_tells_nothing_of_the_machine_that_built_it() {
    let object = object();
    let mut paths = vec![env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests").to_owned()];
    paths.extend(std::env::var("CARGO_HOME"));
    paths.extend(std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    for path in paths {
        let found = object.windows(path.len()).any(|window| window == path.as_bytes());
        assert!(!found, "{path} is in the object");
    }
}
