//! `cargo xtask demo`: builds what the demo needs and runs it. The demo itself is a binary of
//! the tests package, because it uses their namespaces and servers.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::{run, setup};

pub(crate) fn run() -> Result<()> {
    setup::run(setup::Talk::Short, &[setup::Group::Build, setup::Group::Run])?;
    // Built before, so that the time the demo takes is its own. It asks cargo for the path.
    for (package, binary) in [("balancer-user", "balancer"), ("balancer-tests", "demo")] {
        run::run(&mut run::cargo(&["build", "--package", package, "--bin", binary]))?;
    }
    // Ctrl-C reaches the demo too, which cleans up; this waits for it.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block()?;
    run::run(&mut run::cargo(&["run", "--quiet", "--package", "balancer-tests", "--bin", "demo"]))
        .context("the demo did not end well")
}
