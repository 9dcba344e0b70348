//! Second attempts of shards that are far behind (P19): who gets one, and what it means when one of two ends.
//!
//! They cost slots that have nothing else to do, and nothing more: the first result counts, and what ends while the other
//! runs is not charged to the shard.

use std::collections::{BTreeMap, VecDeque};

use hyperflow_api::{
    ids::{Epoch, ShardIndex},
    message::{Failure, FailureClass, Grant, Target},
};

use super::Coordinator;
use crate::{
    Now,
    shards::{Lease, Leased, Seat},
};

/// So many of the latest durations are remembered.
const REMEMBERED: usize = 64;

/// An attempt that has not run for so long is not behind, however fast others were.
const LEAST_MILLIS: u64 = 1000;

/// It is behind if it will still take so many times as long as one that is begun now.
const BEHIND: u64 = 2;

/// After one of two attempts has ended, a shard gets no other second one for so long: doubled up to the longest.
const PAUSE_MILLIS: u64 = 5000;
const LONGEST_PAUSE_MILLIS: u64 = 320_000;

/// How long shards took, from lease to result, in milliseconds: of this take-over, for the one before left nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    latest: VecDeque<u64>,
    /// Shards of which one of two attempts ended: the next pause, and when this one is over.
    pauses: BTreeMap<ShardIndex, (u64, u64)>,
}

impl Pace {
    /// A shard is done. What began half-way, or under an earlier operator, says nothing.
    pub(super) fn learn(&mut self, now: u64, leased: &Leased, epoch: Epoch) {
        let whole = |lease: &&Lease| lease.epoch == epoch && lease.from == 0 && lease.replaces.is_none();
        if let Some(lease) = leased.leases().find(whole) {
            if self.latest.len() == REMEMBERED {
                self.latest.pop_front();
            }
            self.latest.push_back(now.saturating_sub(lease.since));
        }
    }

    pub(super) fn median(&self) -> Option<u64> {
        let mut all: Vec<u64> = self.latest.iter().copied().collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    /// What fails at once must not be begun again at once: nothing else would stop it, for it is not charged.
    fn pause(&mut self, now: u64, index: ShardIndex) {
        let (pause, until) = self.pauses.entry(index).or_insert((PAUSE_MILLIS, 0));
        *until = now + *pause;
        *pause = (*pause * 2).min(LONGEST_PAUSE_MILLIS);
    }

    fn pauses(&self, now: u64, index: ShardIndex) -> bool {
        self.pauses.get(&index).is_some_and(|(_, until)| now < *until)
    }
}

/// A shard whose attempt is far behind.
#[derive(Clone, Copy, Debug)]
struct Straggler {
    index: ShardIndex,
    lease: Lease,
    /// Milliseconds that it has taken, and those that it will still take.
    taken: u64,
    left: u64,
    /// Those that a new attempt will, in thousandths of a whole one.
    share: u64,
}

impl Straggler {
    /// Milliseconds of an attempt that begins now, on a worker that needs so many for a whole shard.
    fn anew(&self, whole: u64) -> u64 {
        whole.saturating_mul(self.share) / 1000
    }
}

impl Coordinator {
    /// Gives idle workers a second attempt of what is furthest behind, once nothing else is left to give.
    pub(super) fn duplicate_stragglers(&mut self, now: Now) {
        if !self.job.duplicates || self.shards.pending() > 0 || self.shards.is_any_due(now.millis) {
            return;
        }
        let Some(median) = self.pace.median() else { return };
        let behind = |(&index, leased): (&ShardIndex, &Leased)| self.straggler(now, index, leased, median);
        let mut stragglers: Vec<Straggler> = self.shards.leased().iter().filter_map(behind).collect();
        stragglers.sort_by_key(|it| (std::cmp::Reverse(it.left), it.index));
        for straggler in stragglers {
            if let Some(seat) = self.who_duplicates(now, straggler, median) {
                self.duplicate(now, seat, straggler, median);
            }
        }
    }

    /// Whether a shard is far behind and may have a second attempt: never one that may kill workers (P16).
    fn straggler(&self, now: Now, index: ShardIndex, leased: &Leased, median: u64) -> Option<Straggler> {
        let Leased { lease, twin: None, history } = leased else { return None };
        let taken = now.millis.saturating_sub(lease.since);
        let early = taken < LEAST_MILLIS.max(median + median / 2) || self.pace.pauses(now.millis, index);
        if history.suspect || early {
            return None;
        }
        let bytes = self.plan.as_ref().map_or(0, |(plan, _)| plan.bytes / u64::from(plan.shards.max(1)));
        let begins = history.checkpoint.map_or(0, |checkpoint| checkpoint.position);
        let share = bytes.saturating_sub(begins).saturating_mul(1000).checked_div(bytes).unwrap_or(1000);
        let straggler = Straggler { index, lease: *lease, taken, left: self.left(now, lease, bytes), share };
        (straggler.left > straggler.anew(median).saturating_mul(BEHIND)).then_some(straggler)
    }

    /// Milliseconds that an attempt will still take: it goes on as fast as it was so far, through a shard of the usual
    /// size. Where that says nothing, as long again as it has taken.
    fn left(&self, now: Now, lease: &Lease, bytes: u64) -> u64 {
        let told = lease.deadline.saturating_sub(self.limits.lease_millis);
        let (read, took) = (lease.position.saturating_sub(lease.from), told.saturating_sub(lease.since));
        let rest = bytes.saturating_sub(lease.position);
        if rest == 0 || read == 0 || took == 0 {
            return now.millis.saturating_sub(lease.since);
        }
        let from_then = u128::from(rest) * u128::from(took) / u128::from(read);
        u64::try_from(from_then).unwrap_or(u64::MAX).saturating_sub(now.millis.saturating_sub(told))
    }

    /// The worker for a second attempt: one with an idle slot that is not too slow itself. Another node comes first, for
    /// the first one may be why.
    fn who_duplicates(&self, now: Now, straggler: Straggler, median: u64) -> Option<Seat> {
        let failing = self.failing_nodes(now);
        let node = self.workers.get(&straggler.lease.seat).map(|worker| worker.node.as_str());
        let fit = self.workers.iter().filter(|(seat, worker)| {
            let held = u32::try_from(worker.held.len()).unwrap_or(u32::MAX);
            let anew = straggler.anew(median.max(worker.shard_millis(now)));
            **seat != straggler.lease.seat
                && held < worker.slots.min(worker.capacity)
                && self.takes_leases(now, worker)
                && !failing.contains(worker.node.as_str())
                && straggler.left > anew.saturating_mul(BEHIND)
        });
        let rank = |seat: &Seat, worker: &super::Worker| {
            (Some(worker.node.as_str()) == node, worker.held.len(), worker.shard_millis(now), *seat)
        };
        fit.min_by_key(|(seat, worker)| rank(seat, worker)).map(|(&seat, _)| seat)
    }

    fn duplicate(&mut self, now: Now, seat: Seat, straggler: Straggler, median: u64) {
        let Straggler { index, taken, left, .. } = straggler;
        let from = self.shards.history(index).and_then(|history| history.checkpoint).map_or(0, |it| it.position);
        let lease = Lease { from, position: from, ..self.lease(now, seat) };
        let Some(history) = self.shards.duplicate(index, lease) else { return };
        let grant = Grant {
            target: Target::Shard(index),
            epoch: lease.epoch,
            attempt: history.attempt(),
            replaces: None,
            probe: true,
            resume: history.checkpoint,
            heir_of: None,
        };
        self.offer(seat, grant);
        let seconds = |millis: u64| millis.div_ceil(1000);
        let message = format!(
            "shard {index}: after {} s its attempt would take about {} s more, a new one about {} s: a second one runs on \
             another worker, and the first result counts",
            seconds(taken),
            seconds(left),
            seconds(straggler.anew(median))
        );
        self.announce(false, "ShardDuplicated", message);
    }

    /// A worker came back after a take-over with a shard that another has claimed already: it was one of two attempts, or
    /// may be one now (P18, P5).
    pub(super) fn may_rejoin(&self, index: ShardIndex, claimed: Epoch) -> bool {
        let suspect = self.shards.history(index).is_some_and(|history| history.suspect);
        self.job.duplicates && claimed.takeover != self.takeover && !suspect && !self.is_suspended()
    }

    /// The shard has two attempts now.
    pub(super) fn has_two(&self, index: ShardIndex) -> bool {
        self.shards.leased().get(&index).is_some_and(|leased| leased.twin.is_some())
    }

    /// Ends one of two attempts: the other goes on, and nothing is charged (P19). False if it is the last.
    pub(super) fn one_of_two_ended(&mut self, now: Now, index: ShardIndex, epoch: Epoch) -> bool {
        let ended = self.shards.end_one_of_two(index, epoch);
        if ended {
            self.pace.pause(now.millis, index);
            self.writer.touch();
        }
        ended
    }

    /// The same for one that failed. What it says of the node, the output, its checkpoint and the job is true all the same.
    pub(super) fn one_of_two_failed(
        &mut self,
        now: Now,
        seat: Seat,
        index: ShardIndex,
        epoch: Epoch,
        failure: &Failure,
    ) -> bool {
        if !self.one_of_two_ended(now, index, epoch) {
            return false;
        }
        if failure.checkpoint_unusable {
            self.shards.amend(index, |history| history.checkpoint = None);
        }
        if self.is_full(failure) {
            self.wait_for_room(now, failure);
        } else if failure.class != FailureClass::WorkerLost {
            self.charge_node(now, seat);
        }
        let message = format!("{} (one of two attempts; the other goes on)", failure.message);
        self.sample(now, Some(index), seat, &Failure { message, ..failure.clone() });
        if failure.ends_job {
            self.fail_job(now, &failure.reason, &failure.message);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;

    #[test]
    fn only_whole_attempts_set_the_pace_and_only_the_latest() {
        let mut pace = Pace::default();
        assert_eq!(pace.median(), None);
        let lease = Lease {
            epoch: Epoch::default(),
            seat: Seat(0),
            deadline: 0,
            replaces: None,
            since: 100,
            from: 0,
            position: 0,
        };
        let half = Leased::alone(Lease { from: 5, ..lease }, History::default());
        let older = Leased::alone(Lease { replaces: Some(Epoch::default()), ..lease }, History::default());
        pace.learn(900, &half, Epoch::default());
        pace.learn(900, &older, Epoch::default());
        pace.learn(900, &Leased::alone(lease, History::default()), Epoch { sequence: 9, ..Epoch::default() });
        assert_eq!(pace.median(), None);
        for duration in [10, 500, 20] {
            pace.learn(100 + duration, &Leased::alone(lease, History::default()), Epoch::default());
        }
        assert_eq!(pace.median(), Some(20));
        (0..100).for_each(|_| pace.learn(130, &Leased::alone(lease, History::default()), Epoch::default()));
        assert_eq!((pace.median(), pace.latest.len()), (Some(30), REMEMBERED));
    }
}
