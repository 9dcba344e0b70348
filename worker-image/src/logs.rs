//! Logs: one JSON object a line, on stdout.

use std::error::Error;

/// Writes logs from now on. `filter` is as in RUST_LOG.
pub fn begin(filter: &str) {
    let logs = tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false);
    logs.with_env_filter(filter).init();
}

/// An error with all its causes, for a log line: an error's own text leaves them out.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    #[test]
    fn every_cause_is_logged() {
        let error = crate::fault::output("sync", Path::new("/x"))(io::Error::other("disk on fire"));
        assert_eq!(causes(&error), "cannot sync '/x': disk on fire");
    }
}
