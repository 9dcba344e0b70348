//! Logs: one JSON object a line, on standard output.

use std::error::Error;

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Logs cannot be written as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("cannot read the log filter '{filter}'")]
    Filter {
        /// As given.
        filter: String,
        /// Where it is wrong.
        #[source]
        source: ParseError,
    },
    /// Something else in this process logs already.
    #[error("cannot install the log writer")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts to log.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(filter: &str) -> Result<(), TelemetryError> {
    let parsed =
        EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.into(), source })?;
    let lines = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    tracing_subscriber::registry().with(parsed).with(lines).try_init().map_err(TelemetryError::Install)
}

/// An error with all its causes, for one log line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = match error.downcast_ref() {
            // The API server's own words; the client's text has them twice, with all fields of the answer.
            Some(kube::Error::Api(status)) => return format!("{text}: {} (HTTP {})", status.message, status.code),
            _ => error.to_string(),
        };
        // Foreign errors often repeat their cause in their own text.
        if !text.ends_with(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    text
}
