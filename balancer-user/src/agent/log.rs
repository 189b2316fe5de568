//! What the agent says, on standard error: one event a line, its object as fields.

use tracing_subscriber::EnvFilter;

use crate::settings::{Log, LogForm, LogLevel};

/// Begins to write events of the whole process. Once per process: later calls do nothing.
pub(super) fn begin(log: Log, colours: bool) {
    // Libraries are heard from warnings on, whatever is asked of us.
    let filter = EnvFilter::new(match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "warn,balancer_user=info",
        LogLevel::Debug => "warn,balancer_user=debug",
    });
    let events = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours);
    // Fails where events are written already, as in a test that runs two agents.
    let _ = match log.form {
        LogForm::Text => events.try_init(),
        LogForm::Json => events.json().flatten_event(true).try_init(),
    };
}
