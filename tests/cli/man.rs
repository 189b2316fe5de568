//! Manual pages: complete, and roff that man(1) has nothing to say about.

use std::{fs, process::Command};

use crate::{help::COMMANDS, run::balancer};

#[test]
fn page_of_every_command_has_every_option_and_renders_without_a_warning() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let man = Command::new("man").arg("--version").output().is_ok();
    if !man {
        eprintln!("man is not installed: pages are not rendered, only read");
    }
    for command in COMMANDS {
        let args: Vec<&str> = ["man"].iter().chain(*command).copied().collect();
        let ended = balancer(&args).exits(0);
        assert_eq!(ended.stderr, "", "{ended}");
        let roff = ended.stdout.replace("\\-", "-");
        let name = ["balancer"].iter().chain(*command).copied().collect::<Vec<_>>().join("-");
        for part in [".SH NAME", &format!("\n{name} - "), ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(roff.contains(part), "the page of {name} lacks {part:?}:\n{roff}");
        }
        let help: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = balancer(&help).exits(0).stdout;
        let options: Vec<&str> = help
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-'))
            .filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")))
            .collect();
        assert!(options.contains(&"--bpffs"), "{options:?}");
        for option in options {
            assert!(roff.contains(option), "the page of {name} lacks {option}:\n{roff}");
        }
        if man {
            let file = dir.path().join(format!("{name}.1"));
            fs::write(&file, &ended.stdout).expect("the page can be written");
            let rendered = Command::new("man")
                .args(["--warnings", "--pager=cat", "-l"])
                .arg(&file)
                .env("LC_ALL", "C")
                .output()
                .expect("man can be started");
            let warnings = String::from_utf8_lossy(&rendered.stderr);
            assert!(rendered.status.success() && warnings.is_empty(), "{name}: {warnings}");
            let page = String::from_utf8_lossy(&rendered.stdout);
            assert!(page.contains("SYNOPSIS") && page.contains(&name), "{name}:\n{page}");
        }
    }
}

#[test]
fn page_of_an_unknown_verb_is_wrong_usage() {
    balancer(&["man", "lod"]).exits(2).says(&["`lod`", "did you mean `load`"]);
    balancer(&["man", "payments"]).exits(2).says(&["there are: load, agent"]);
    balancer(&["man", "load", "it"]).exits(2).says(&["balancer-load has no verb `it`"]);
}
