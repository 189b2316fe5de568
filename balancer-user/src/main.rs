//! The `balancer` command: parses arguments, dispatches, turns the outcome into an exit code.
use std::process::ExitCode;

fn main() -> ExitCode {
    balancer_user::cli::main()
}
