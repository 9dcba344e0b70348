//! How long an attempt may take, and how long it may stand still.

use hyperflow_api::failure::FailurePolicy;

/// The limits of one attempt, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptLimits {
    /// All of it: `attemptDeadlineSeconds`.
    pub attempt: Option<u64>,
    /// Without a byte read or written, or a checkpoint: `progressTimeoutSeconds`.
    pub progress: Option<u64>,
}

/// A limit that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The attempt took too long.
    Attempt,
    /// It stood still for too long.
    Progress,
}

impl AttemptLimits {
    pub(crate) fn new(policy: &FailurePolicy) -> Self {
        let millis = |seconds: Option<i32>| u64::try_from(seconds?).ok().map(|seconds| seconds * 1000);
        Self { attempt: millis(policy.attempt_deadline_seconds), progress: millis(policy.progress_timeout_seconds) }
    }

    /// Which limit is over, if one is. All times are of one clock, in milliseconds.
    #[must_use]
    pub fn is_over(&self, now: u64, started: u64, last_progress: u64) -> Option<Over> {
        let since = |start: u64, limit: Option<u64>| limit.is_some_and(|limit| now.saturating_sub(start) >= limit);
        if since(started, self.attempt) {
            Some(Over::Attempt)
        } else if since(last_progress.max(started), self.progress) {
            Some(Over::Progress)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_over_by_its_length_or_by_standing_still() {
        let limits = AttemptLimits { attempt: Some(60_000), progress: Some(10_000) };
        assert_eq!(limits.is_over(9_999, 0, 0), None);
        assert_eq!(limits.is_over(10_000, 0, 0), Some(Over::Progress));
        assert_eq!(limits.is_over(59_999, 0, 50_000), None);
        assert_eq!(limits.is_over(60_000, 0, 59_999), Some(Over::Attempt));
        assert_eq!(AttemptLimits::default().is_over(u64::MAX, 0, 0), None);
    }

    #[test]
    fn what_was_before_the_attempt_is_no_standing_still_of_it() {
        let limits = AttemptLimits { attempt: None, progress: Some(10_000) };
        assert_eq!(limits.is_over(25_000, 20_000, 1_000), None);
    }
}
