//! `cargo xtask demo`: builds what the demo needs and runs it. The demo itself is a binary of
//! the tests package, because it uses their namespaces and servers.

use anyhow::{Context, Result};

use crate::{run, setup};

pub(crate) fn run() -> Result<()> {
    setup::run(setup::Talk::Short)?;
    // Built before, so that the demo's own time is what it says. It asks cargo for the path.
    run::run(&mut run::cargo(&["build", "--package", "balancer-user", "--bin", "balancer"]))?;
    run::run(&mut run::cargo(&["run", "--package", "balancer-tests", "--bin", "demo"]))
        .context("the demo did not end well")
}
