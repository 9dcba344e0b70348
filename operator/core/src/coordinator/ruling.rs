//! What a failure costs its shard, by the rules of the spec.

use std::collections::BTreeMap;

use hyperflow_api::{
    ids::ShardIndex,
    message::{Failure, FailureClass},
};

use super::{Coordinator, facts::shorten_to};
use crate::{
    Now,
    causes::Cause,
    history::{Blame, History},
    policy::{Action, Ruling},
    retry::{MAX_LOSSES, Verdict as Retry},
    shards::{Seat, Waiting},
};

/// The reason of a job that a rule has failed.
const FAILED_BY_RULE: &str = "FailurePolicy";

/// So long a shard that is due waits for a worker on another node than the one it failed on.
const ELSEWHERE_MILLIS: u64 = 10_000;

/// The nodes that shards failed on which are better tried elsewhere. In memory alone: after a take-over any node will do.
pub(super) type Elsewhere = BTreeMap<ShardIndex, String>;

impl Coordinator {
    /// Charges an attempt that failed. What follows, and how that is said.
    pub(super) fn charge(
        &mut self,
        now: Now,
        seat: Seat,
        index: ShardIndex,
        history: &mut History,
        ruling: Ruling,
    ) -> (Retry, String) {
        if ruling.action != Action::Move {
            // It ended by itself: whatever a worker died of before, this attempt did not kill one.
            history.suspect = false;
            self.charge_node(now, seat);
        }
        let retry = self.job.retry;
        let (verdict, attempts) = match ruling.action {
            Action::Move => {
                history.losses += 1;
                let attempts = format!("not its own failure, {} so far", history.losses);
                (retry.after_loss(history.losses, history.kills), attempts)
            }
            Action::Ignore => {
                history.losses += 1;
                let attempts = format!("not counted, {} of at most {MAX_LOSSES}", history.losses);
                (retry.after_ignored(index, history.losses, self.seed()), attempts)
            }
            Action::Count | Action::FailShard | Action::FailJob => {
                history.failures += 1;
                let attempts = format!("attempt {} of {}", history.failures, retry.max_attempts);
                let counts = ruling.action == Action::Count;
                let verdict = retry.after_failure(index, history.failures, self.seed());
                (if counts { verdict } else { Retry::GiveUp }, attempts)
            }
        };
        (verdict, format!(" ({attempts}{})", ruling.says()))
    }

    /// Tells people of an attempt that failed, and does to the job what the rule says.
    pub(super) fn tell_of_failure(
        &mut self,
        now: Now,
        (seat, index): (Seat, ShardIndex),
        failure: &Failure,
        (ruling, verdict, attempts): (Ruling, Retry, &str),
    ) {
        let message = shorten_to(&failure.message, attempts);
        self.sample(now, Some(index), seat, &Failure { message: message.clone(), ..failure.clone() });
        if failure.ends_job {
            return self.fail_job(now, &failure.reason, &failure.message);
        }
        let reason = if verdict == Retry::GiveUp { "ShardFailed" } else { "ShardRetried" };
        self.announce(true, reason, format!("shard {index}: {}: {message}", failure.reason));
        if ruling.action == Action::FailJob {
            self.fail_by_rule(now, ruling, &format!("shard {index}: {}: {}", failure.reason, failure.message));
        } else if verdict != Retry::GiveUp && ruling.other_node {
            let node = self.workers.get(&seat).map(|worker| worker.node.clone()).unwrap_or_default();
            self.try_elsewhere(index, node);
        }
    }

    pub(super) fn fail_by_rule(&mut self, now: Now, ruling: Ruling, what: &str) {
        let message = format!("{what}{}", ruling.says());
        self.fail_job(now, FAILED_BY_RULE, &message);
    }

    /// What the loss of a worker is to a shard that it had begun: a rule's word, or as it is without one.
    pub(super) fn ruling_on_loss(&self, cause: Option<&Cause>, blame: Blame) -> Ruling {
        if blame == Blame::None {
            return Ruling::MOVE;
        }
        let failure = self.failure_of_loss(cause);
        let by_memory = failure.class == FailureClass::OutOfMemory && blame == Blame::Alone;
        let without_rule = || if by_memory { self.job.rules.judge(&failure) } else { Ruling::MOVE };
        self.job.rules.matching(&failure).unwrap_or_else(without_rule)
    }

    fn failure_of_loss(&self, cause: Option<&Cause>) -> Failure {
        let (class, reason, message) = match cause {
            Some(cause) => (cause.class, cause.reason.as_str(), cause.message.clone()),
            None => (FailureClass::WorkerLost, super::losses::LOST, "the worker was lost".into()),
        };
        super::losses::failure(class, reason, message)
    }

    /// An attempt failed on a node, and the next one is better made on another.
    pub(super) fn try_elsewhere(&mut self, index: ShardIndex, node: String) {
        let waiting = self.shards.waiting();
        self.elsewhere.retain(|index, _| waiting.contains_key(index));
        if !node.is_empty() && waiting.contains_key(&index) {
            self.elsewhere.insert(index, node);
        }
    }

    /// Whether a shard is left to workers on other nodes than this worker's, for a while.
    pub(super) fn is_left_to_others(&self, now: Now, seat: Seat, index: ShardIndex, waiting: &Waiting) -> bool {
        let Some(node) = self.elsewhere.get(&index) else { return false };
        let here = self.workers.get(&seat).is_some_and(|worker| worker.node == *node);
        let elsewhere = || self.workers.values().any(|other| self.takes_leases(now, other) && other.node != *node);
        here && now.millis < waiting.until.saturating_add(ELSEWHERE_MILLIS) && elsewhere()
    }
}
