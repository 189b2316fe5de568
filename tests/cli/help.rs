//! What `--help` says, as one committed file: a change of the interface shows in review.

use std::{fmt::Write as _, fs, path::Path};

use crate::run::balancer;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cli/help.txt");

/// Every command, in the order of `balancer --help`.
pub(crate) const COMMANDS: &[&[&str]] = &[
    &[],
    &["load"],
    &["agent"],
    &["config"],
    &["unload"],
    &["check"],
    &["plan"],
    &["explain"],
    &["show"],
    &["show", "vips"],
    &["show", "sources"],
    &["show", "routes"],
    &["show", "backends"],
    &["show", "reals"],
    &["show", "tables"],
    &["show", "flows"],
    &["show", "counters"],
    &["show", "reasons"],
    &["maps"],
    &["maps", "list"],
    &["maps", "dump"],
    &["maps", "lookup"],
    &["trace"],
    &["status"],
    &["schema"],
    &["completions"],
    &["man"],
];

#[test]
fn help_of_every_command_is_the_committed_one() {
    let mut help = String::new();
    for command in COMMANDS {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let ended = balancer(&args).exits(0);
        assert_eq!(ended.stderr, "", "{ended}");
        writeln!(help, "$ {}\n{}", ended.line, ended.stdout).expect("strings take everything");
    }
    if std::env::var_os("BALANCER_BLESS").is_some() {
        fs::write(SNAPSHOT, &help).expect("the snapshot can be written");
    }
    let committed = fs::read_to_string(Path::new(SNAPSHOT)).expect("the snapshot is committed");
    if let Some((at, (now, then))) =
        help.lines().zip(committed.lines()).enumerate().find(|(_, (now, then))| now != then)
    {
        panic!(
            "cli/help.txt line {}:\n  committed: {then}\n  now:       {now}\n\
             accept with: BALANCER_BLESS=1 cargo test -p balancer-tests --test cli help",
            at + 1
        );
    }
    assert_eq!(help.lines().count(), committed.lines().count(), "one has more lines");
}

/// Every command that the snapshot should have: a new one must not be forgotten.
#[test]
fn help_lists_no_command_that_the_snapshot_lacks() {
    for (command, prefix) in [(&[][..], 1), (&["show"][..], 2), (&["maps"][..], 2)] {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let ended = balancer(&args).exits(0);
        let (_, list) = ended.stdout.split_once("Commands:\n").expect("a list of commands");
        let names: Vec<&str> = list
            .lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .collect();
        let known: Vec<&str> = COMMANDS
            .iter()
            .filter(|known| known.len() == prefix && known.starts_with(command))
            .filter_map(|known| known.last().copied())
            .collect();
        assert_eq!(names, known);
    }
}

#[test]
fn every_help_names_its_exit_codes_and_an_example() {
    for command in
        ["load", "unload", "check", "plan", "explain", "show", "maps", "trace", "status", "schema"]
    {
        balancer(&[command, "--help"]).exits(0).prints(&["Examples:", "Exit codes:", "--bpffs"]);
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        balancer(&["completions", shell]).exits(0).prints(&["balancer", "explain"]);
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_what_is_meant() {
    balancer(&["chek"]).exits(2).says(&["check"]);
    balancer(&["load"]).exits(2).says(&["-f", "PATH"]);
    balancer(&["show", "vip"]).exits(2).says(&["vips"]);
    balancer(&["status", "-o", "xml"]).exits(2).says(&["json", "yaml"]);
    balancer(&["load", "-f", "-", "--attach", "eth0=xpd"]).exits(2).says(&[
        "no hook `xpd`",
        "eth0=tc",
        "eth0=xdp",
    ]);
    balancer(&["explain", "--tuple", "10.0.0.1:1,[fd00::1]:1"])
        .exits(2)
        .says(&["different families"]);
    balancer(&["status", "-o", "hosts"]).exits(2).says(&["balancer show vips -o hosts"]);
}
