//! When there is another attempt.

use hyperflow_api::{failure::FailurePolicy, ids::ShardIndex};

/// What a failure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts that end in the shard's own failure.
    pub max_attempts: u32,
    /// Seconds before the second attempt.
    pub initial_seconds: u32,
    /// Most seconds between two attempts.
    pub max_seconds: u32,
}

/// Lost workers and nodes do not use up attempts, but a shard that outlives this many is given up: something about it
/// kills workers.
pub const MAX_LOSSES: u32 = 20;

/// A shard that was alone with so many workers when they died is given up: it kills workers (P16).
pub const MAX_KILLS: u32 = 3;

/// Longest wait after the loss of a worker, in milliseconds.
const LONGEST_AFTER_LOSS: u64 = 30_000;

/// How long the cluster takes to say why a process ended: another kill is not counted before it could have been put right.
const TELLING_MILLIS: u64 = 2000;

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt, after so many milliseconds.
    RetryAfter(u64),
    /// No more.
    GiveUp,
}

impl RetryPolicy {
    /// From the spec.
    #[must_use]
    pub fn new(policy: &FailurePolicy) -> Self {
        let seconds = |value: i32| u32::try_from(value).unwrap_or(0);
        Self {
            max_attempts: seconds(policy.max_attempts).max(1),
            initial_seconds: seconds(policy.backoff.initial_seconds),
            max_seconds: seconds(policy.backoff.max_seconds),
        }
    }

    /// After the shard's own failure number `failures` (from 1): doubles from the initial wait to the longest, with a
    /// jitter of up to a fifth that depends on shard, attempt and `seed` alone, so that shards which failed together do
    /// not come back together.
    #[must_use]
    pub fn after_failure(&self, index: ShardIndex, failures: u32, seed: u64) -> Verdict {
        if failures >= self.max_attempts {
            return Verdict::GiveUp;
        }
        Verdict::RetryAfter(self.wait(index, failures, seed))
    }

    /// After a failure that a rule ignores, `losses` of which and of lost workers together the shard has had (from 1): the
    /// same waits, and as many as there may be losses.
    #[must_use]
    pub fn after_ignored(&self, index: ShardIndex, losses: u32, seed: u64) -> Verdict {
        match losses {
            MAX_LOSSES.. => Verdict::GiveUp,
            _ => Verdict::RetryAfter(self.wait(index, losses, seed)),
        }
    }

    fn wait(&self, index: ShardIndex, times: u32, seed: u64) -> u64 {
        let doubled = u64::from(self.initial_seconds) << times.saturating_sub(1).min(20);
        let wait = doubled.min(u64::from(self.max_seconds)) * 1000;
        wait + wait / 5 * u64::from(scatter(index, times, seed)) / 256
    }

    /// After the worker was lost for the `losses`th time (from 1), `kills` times with this shard alone: the first retry
    /// waits for nothing, for most workers die of something that is not the shard.
    #[must_use]
    pub fn after_loss(&self, losses: u32, kills: u32) -> Verdict {
        if kills >= MAX_KILLS {
            return Verdict::GiveUp;
        }
        match losses {
            _ if kills > 1 => Verdict::RetryAfter(TELLING_MILLIS),
            0 | 1 => Verdict::RetryAfter(0),
            MAX_LOSSES.. => Verdict::GiveUp,
            more => Verdict::RetryAfter((250 << (more - 2).min(7)).min(LONGEST_AFTER_LOSS)),
        }
    }

    /// After the output was found to be full for the `times`th time in a row (from 1), in milliseconds: the whole job
    /// waits, so that there is nothing to scatter.
    #[must_use]
    pub fn after_full(&self, times: u32) -> u64 {
        let doubled = u64::from(self.initial_seconds.max(1)) << times.saturating_sub(1).min(20);
        doubled.min(u64::from(self.max_seconds.max(1))) * 1000
    }

    /// No retry waits longer than so many milliseconds.
    #[must_use]
    pub fn longest_wait(&self) -> u64 {
        (u64::from(self.max_seconds) * 1200).max(LONGEST_AFTER_LOSS)
    }
}

/// A number from 0 to 255 that looks like chance and is always the same (SplitMix64's finaliser).
fn scatter(index: ShardIndex, failures: u32, seed: u64) -> u8 {
    let mut x = (seed ^ (u64::from(index) << 32 | u64::from(failures))).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 56).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { max_attempts: 4, initial_seconds: 5, max_seconds: 12 };

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_attempts() {
        let wait = |failures| match POLICY.after_failure(7, failures, 1) {
            Verdict::RetryAfter(wait) => wait,
            Verdict::GiveUp => u64::MAX,
        };
        assert!((5000..=6000).contains(&wait(1)));
        assert!((10_000..=12_000).contains(&wait(2)));
        assert!((12_000..=14_400).contains(&wait(3)) && wait(3) <= POLICY.longest_wait());
        assert_eq!(POLICY.after_failure(7, 4, 1), Verdict::GiveUp);
    }

    #[test]
    fn an_ignored_failure_waits_alike_and_cannot_loop_for_ever() {
        assert_eq!(POLICY.after_ignored(7, 1, 1), POLICY.after_failure(7, 1, 1));
        assert!(matches!(POLICY.after_ignored(7, MAX_LOSSES - 1, 1), Verdict::RetryAfter(12_000..=14_400)));
        assert_eq!(POLICY.after_ignored(7, MAX_LOSSES, 1), Verdict::GiveUp);
    }

    #[test]
    fn a_full_output_is_tried_again_for_ever_and_never_at_once() {
        let waits = [1, 2, 3, 4, 99, u32::MAX].map(|times| POLICY.after_full(times));
        assert_eq!(waits, [5000, 10_000, 12_000, 12_000, 12_000, 12_000]);
        assert!(waits.iter().all(|wait| *wait <= POLICY.longest_wait()));
        let hasty = RetryPolicy { initial_seconds: 0, max_seconds: 0, ..POLICY };
        assert_eq!(hasty.after_full(3), 1000);
    }

    #[test]
    fn a_lost_worker_costs_no_wait_at_first_and_is_bounded() {
        assert_eq!(POLICY.after_loss(1, 1), Verdict::RetryAfter(0));
        assert_eq!(POLICY.after_loss(2, 0), Verdict::RetryAfter(250));
        assert_eq!(POLICY.after_loss(2, 2), Verdict::RetryAfter(2000));
        assert_eq!(POLICY.after_loss(MAX_LOSSES - 1, 1), Verdict::RetryAfter(LONGEST_AFTER_LOSS));
        assert_eq!(POLICY.after_loss(MAX_LOSSES, 0), Verdict::GiveUp);
        assert_eq!(POLICY.after_loss(MAX_KILLS, MAX_KILLS), Verdict::GiveUp);
    }
}
