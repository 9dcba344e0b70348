//! An output that is full. That is no failure of a shard: it waits and is tried again, as often as need be, and nothing
//! more is begun meanwhile, for every shard would meet the same.

use hyperflow_api::{ShardJobStatus, ids::ShardIndex, message::Failure};

use super::Coordinator;
use crate::{
    Now, causes,
    reasons::OUTPUT_FULL,
    retry::{RetryPolicy, Verdict as Retry},
    shards::Seat,
};

/// So long after the last refusal a checkpoint shows that there is room again. One that comes sooner may just have
/// taken what the failed attempts gave back.
const ROOM_MILLIS: u64 = 30_000;

/// Whether the output takes more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// How often it did not, in a row: attempts that ran side by side count once.
    refusals: u32,
    /// Nothing is begun before this time, in milliseconds.
    not_before: u64,
}

impl Room {
    /// As an earlier operator found it.
    pub(super) fn left(status: &ShardJobStatus) -> Self {
        let full = |it: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            it.type_ == "Reconciling" && it.reason == OUTPUT_FULL
        };
        Self { refusals: u32::from(status.conditions.iter().any(full)), not_before: 0 }
    }

    /// It was full when last tried.
    pub(crate) fn is_full(self) -> bool {
        self.refusals > 0
    }

    /// Nothing is to be begun yet.
    pub(super) fn waits(self, now: u64) -> bool {
        now < self.not_before
    }

    /// It is full. Whether that is news.
    fn refused(&mut self, now: u64, retry: &RetryPolicy) -> bool {
        if self.waits(now) {
            return false;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.not_before = now + retry.after_full(self.refusals);
        true
    }
}

impl Coordinator {
    /// The output was full for a shard. Its attempts are not used up.
    pub(super) fn learn_full(&mut self, now: Now, seat: Seat, index: ShardIndex, failure: &Failure) {
        let Some(leased) = self.shards.leased().get(&index).copied() else { return };
        let (epoch, mut history) = (leased.lease.epoch, leased.history);
        // It ended by itself: whatever a worker died of before, this attempt did not kill one.
        history.suspect = false;
        let wait = self.wait_for_room(now, failure);
        self.end_attempt(now, index, epoch, history, Retry::RetryAfter(wait));
        let message = format!("{}. No attempt is used up: the shard waits for room", failure.message);
        self.sample(now, Some(index), seat, &Failure { message, ..failure.clone() });
    }

    /// How long whoever met a full output waits.
    pub(super) fn wait_for_room(&mut self, now: Now, failure: &Failure) -> u64 {
        if self.room.refused(now.millis, &self.job.retry) {
            let seconds = (self.room.not_before - now.millis) / 1000;
            self.announce(true, OUTPUT_FULL, format!("{}. Tried again in {seconds} s", failure.message));
        }
        self.room.not_before.saturating_sub(now.millis)
    }

    /// Something was written to the output: a whole result, or a part of one.
    pub(super) fn there_is_room(&mut self, now: Now, whole: bool) {
        if self.room.is_full() && (whole || now.millis >= self.room.not_before.saturating_add(ROOM_MILLIS)) {
            self.room = Room::default();
            self.writer.touch();
        }
    }

    /// Whether a failure is of this kind, of a job that has an output.
    pub(super) fn is_full(&self, failure: &Failure) -> bool {
        self.job.publishes() && causes::is_full(failure)
    }
}
