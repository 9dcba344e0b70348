//! The way to the API server: nothing is repeated behind our back, and every call has a deadline.

use std::{future::Future, time::Duration};

use kube::{Client, Config};

use crate::watching::WATCH_SECONDS;

/// Longest time for one call.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Longest time to connect. Within it a lost packet is sent again once; a server that is away longer is asked again.
const CONNECT: Duration = Duration::from_secs(2);

/// Longest silence on a connection, so that dead ones do not stay. Only watches are silent for long, and they end by
/// themselves.
const SILENCE: Duration = Duration::from_secs(10 + WATCH_SECONDS as u64);

/// The API server cannot be addressed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is neither a kubeconfig nor a service account.
    #[error("cannot find out how to reach the API server")]
    Config(#[source] kube::config::InferConfigError),
    /// The configuration makes no client.
    #[error("cannot make a client of the API server")]
    Client(#[source] kube::Error),
}

/// A client that sends each request once.
///
/// # Errors
/// When there is no usable configuration. The API server itself is not called.
pub async fn connect() -> Result<Client, ConnectError> {
    let mut config = Config::infer().await.map_err(ConnectError::Config)?;
    // The default repeats even a POST for minutes, so that a deposed leader could still write long after.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(ConnectError::Client)
}

/// A call of the API server that brought no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Whether it was done is unknown.
    #[error("cannot {action} '{subject}': no answer within {seconds}s")]
    Deadline {
        /// What we were doing.
        action: &'static str,
        /// To what.
        subject: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The API server's answer, or the connection's failure.
    #[error("cannot {action} '{subject}'")]
    Api {
        /// What we were doing.
        action: &'static str,
        /// To what.
        subject: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
}

impl CallError {
    /// The API server's own answer: `(HTTP code, reason, message)`. None when it may or may not have been done.
    #[must_use]
    pub fn answer(&self) -> Option<(u16, &str, &str)> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some((status.code, &status.reason, &status.message)),
                _ => None,
            },
            Self::Deadline { .. } => None,
        }
    }

    /// The API server has answered, and not only that it is in trouble (HTTP 5xx, 408, 429).
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answer().is_some_and(|(code, ..)| code < 500 && code != 408 && code != 429)
    }

    /// The API server has said no, and a repetition would get the same answer (HTTP 4xx, but not 408 and 429).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.answer().is_some_and(|(code, ..)| (400..500).contains(&code) && code != 408 && code != 429)
    }

    /// HTTP 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.answer().is_some_and(|(code, ..)| code == 404)
    }

    /// HTTP 409: another writer was first, or the object exists.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.answer().is_some_and(|(code, ..)| code == 409)
    }
}

/// Makes a call, but waits no longer than [`DEADLINE`]. `action` is a verb with its object: `create pod`.
///
/// # Errors
/// With what we were doing, and to what.
pub async fn call<T>(
    action: &'static str,
    subject: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    call_within(DEADLINE, action, subject, request).await
}

/// Makes a call, but waits no longer than `deadline`.
///
/// # Errors
/// With what we were doing, and to what.
pub async fn call_within<T>(
    deadline: Duration,
    action: &'static str,
    subject: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CallError::Api { action, subject: subject.into(), source: Box::new(source) }),
        Err(_elapsed) => Err(CallError::Deadline { action, subject: subject.into(), seconds: deadline.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    async fn answered(code: u16) -> CallError {
        let status = Status { code, ..Status::default() };
        call("get pod", "a", async { Err::<(), _>(kube::Error::Api(Box::new(status))) }).await.unwrap_err()
    }

    #[tokio::test]
    async fn only_an_answer_is_a_refusal() {
        for (code, refusal) in
            [(403, true), (404, true), (409, true), (422, true), (408, false), (429, false), (503, false)]
        {
            assert_eq!(answered(code).await.is_refusal(), refusal, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let error = call("get pod", "a", std::future::pending::<kube::Result<()>>()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot get pod 'a': no answer within 5s");
        assert!(!error.is_refusal());
    }
}
