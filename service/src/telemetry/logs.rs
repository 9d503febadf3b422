//! Structured logs, as text for people or JSON for machines.
//!
//! Every line of a node carries `node`; lines about messages carry `peer`, `message_type` and `action`; lines about a
//! client's request carry `request_id`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    #[default]
    Text,
}

/// Installs the process's log subscriber, writing to standard error.
///
/// `filter` is a directive list as in `info,seawall_kv=debug`.
///
/// # Errors
/// The filter cannot be read, or a subscriber is installed already; the message says which.
pub fn install(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal()) // a file of escape codes is hard to read and to search
        .with_span_events(FmtSpan::NONE);
    let installed = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
        LogFormat::Text => builder.finish().try_init(),
    };
    installed.map_err(|error| error.to_string())
}
