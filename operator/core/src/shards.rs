//! The state of every shard, and the one place that changes it.
//!
//! ```text
//!              grant                    published (any epoch, P7)
//!  pending ───────────▶ leased ─────────────────────────────────────▶ done
//!     ▲                  │  ▲                                           ▲
//!     │ (below `next`:   │  │ grant, reissue                published   │
//!     │  limbo)  failed, │  │                                           │
//!     │            lost, ▼  │                                           │
//!     │         released waiting ──────────────────────────────────────▶┤
//!     │                  │ attempts spent                               │
//!     │                  ▼                                              │
//!     └               failed ───────────────────────────────────────────┘
//! ```
//!
//! Shards are leased in index order, so pending ones need no record: they are those from `next` on. Below it only what is
//! leased or waiting has a record (a hole, P14). After a take-over, shards that an earlier operator may have granted
//! without status knowing are in limbo: below `next`, without a record. A leased shard may have a second attempt: see
//! `twins.rs`.

mod choice;
mod lease;
mod twins;

use std::collections::BTreeMap;

use hyperflow_api::{
    ids::{Epoch, ShardIndex},
    message::Checkpoint,
};

pub(crate) use self::choice::Asking;
pub use self::lease::{Lease, Leased, Seat, Waiting};
pub use crate::history::History;
use crate::ranges::RangeSet;

/// All shards of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    total: u32,
    next: ShardIndex,
    done: RangeSet,
    failed: RangeSet,
    limbo: RangeSet,
    leased: BTreeMap<ShardIndex, Leased>,
    waiting: BTreeMap<ShardIndex, Waiting>,
}

impl Shards {
    /// A new plan: all pending.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self { total, ..Self::default() }
    }

    /// After a take-over: what status says, and the rest below `reserved` in limbo.
    #[must_use]
    pub fn resume(
        total: u32,
        reserved: ShardIndex,
        done: RangeSet,
        failed: RangeSet,
        waiting: BTreeMap<ShardIndex, Waiting>,
    ) -> Self {
        let highest = [done.ranges().last(), failed.ranges().last()].into_iter().flatten().map(|range| range.end).max();
        let highest = highest.max(waiting.keys().next_back().map(|index| index + 1)).unwrap_or(0);
        let next = reserved.max(highest).min(total);
        let mut limbo = RangeSet::of(0..next);
        for index in done.iter().chain(failed.iter()).chain(waiting.keys().copied()) {
            limbo.remove(index);
        }
        Self { total, next, done, failed, limbo, leased: BTreeMap::new(), waiting }
    }

    /// Number of shards in the plan.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// No shard from here on was ever granted.
    #[must_use]
    pub fn next(&self) -> ShardIndex {
        self.next
    }

    /// Published.
    #[must_use]
    pub fn done(&self) -> &RangeSet {
        &self.done
    }

    /// Given up.
    #[must_use]
    pub fn failed(&self) -> &RangeSet {
        &self.failed
    }

    /// Leased, by index.
    #[must_use]
    pub fn leased(&self) -> &BTreeMap<ShardIndex, Leased> {
        &self.leased
    }

    /// Waiting, by index.
    #[must_use]
    pub fn waiting(&self) -> &BTreeMap<ShardIndex, Waiting> {
        &self.waiting
    }

    /// In limbo since a take-over.
    #[must_use]
    pub fn limbo(&self) -> &RangeSet {
        &self.limbo
    }

    /// Neither leased nor waiting nor settled.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.total - self.next + self.limbo.len()
    }

    /// Records that status must hold (P14).
    #[must_use]
    pub fn holes(&self) -> usize {
        self.leased.len() + self.waiting.len()
    }

    /// Every shard is done or failed.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        self.done.len() + self.failed.len() == self.total
    }

    /// The shard was settled, so that no attempt of it counts.
    #[must_use]
    pub fn is_settled(&self, index: ShardIndex) -> bool {
        self.done.contains(index) || self.failed.contains(index)
    }

    /// Leases a shard that is neither leased nor settled. Returns what came before, or nothing if it may not be leased.
    pub fn grant(&mut self, index: ShardIndex, lease: Lease) -> Option<History> {
        if index >= self.total || self.is_settled(index) || self.leased.contains_key(&index) {
            return None;
        }
        let history = match self.waiting.remove(&index) {
            Some(waiting) => waiting.history,
            None => {
                self.reach(index);
                self.limbo.remove(index);
                History::default()
            }
        };
        self.leased.insert(index, Leased::alone(lease, history));
        Some(history)
    }

    /// Everything up to `index` now counts as granted once; what is skipped is in limbo.
    fn reach(&mut self, index: ShardIndex) {
        while self.next <= index {
            self.limbo.insert(self.next);
            self.next += 1;
        }
    }

    /// A heartbeat named the lease (P2), or the one it replaces: the worker may not have heard of the new epoch yet.
    pub fn renew(&mut self, index: ShardIndex, epoch: Epoch, deadline: u64, position: u64) -> bool {
        let named = |lease: &&mut Lease| lease.epoch == epoch || lease.replaces == Some(epoch);
        let Some(lease) = self.leased.get_mut(&index).and_then(|leased| leased.leases_mut().find(named)) else {
            return false;
        };
        lease.deadline = deadline;
        lease.position = lease.position.max(position);
        true
    }

    /// A durable checkpoint under a live epoch; an old one that is repeated changes nothing (P20).
    pub fn checkpoint(&mut self, index: ShardIndex, epoch: Epoch, checkpoint: Checkpoint) -> bool {
        let Some(leased) = self.leased.get_mut(&index).filter(|leased| leased.is_live(epoch)) else {
            return false;
        };
        let further = twins::is_further(leased.history.checkpoint, checkpoint);
        if further {
            leased.history.checkpoint = Some(checkpoint);
        }
        for lease in leased.leases_mut().filter(|lease| lease.epoch == epoch) {
            lease.position = lease.position.max(checkpoint.position);
        }
        further
    }

    /// The result is visible: believed from any epoch (P7). Returns whether this is news, and who had the shard until then.
    pub fn published(&mut self, index: ShardIndex) -> (bool, Option<Leased>) {
        if index >= self.total || !self.done.insert(index) {
            return (false, None);
        }
        if !self.failed.remove(index) && !self.waiting.contains_key(&index) && !self.leased.contains_key(&index) {
            self.reach(index);
            self.limbo.remove(index);
        }
        self.waiting.remove(&index);
        (true, self.leased.remove(&index))
    }

    /// Ends the last live lease, with this epoch; the shard waits until `until`, with this history.
    pub fn wait(&mut self, index: ShardIndex, epoch: Epoch, until: u64, history: History) -> bool {
        let live = self.is_live(index, epoch) && !self.is_one_of_two(index, epoch);
        if live {
            self.leased.remove(&index);
            self.waiting.insert(index, Waiting { until, unclaimed: false, history });
        }
        live
    }

    /// Ends the last live lease, with this epoch; the shard is given up.
    pub fn give_up(&mut self, index: ShardIndex, epoch: Epoch) -> bool {
        let live = self.is_live(index, epoch) && !self.is_one_of_two(index, epoch);
        if live {
            self.leased.remove(&index);
            self.failed.insert(index);
        }
        live
    }

    /// What is remembered of a shard that is leased or waits.
    #[must_use]
    pub fn history(&self, index: ShardIndex) -> Option<History> {
        let leased = self.leased.get(&index).map(|leased| leased.history);
        leased.or_else(|| self.waiting.get(&index).map(|waiting| waiting.history))
    }

    /// Puts right what is remembered of a shard that is leased or waits; returns it as it is then.
    pub(crate) fn amend(&mut self, index: ShardIndex, change: impl FnOnce(&mut History)) -> Option<History> {
        let leased = self.leased.get_mut(&index).map(|leased| &mut leased.history);
        let history = leased.or_else(|| self.waiting.get_mut(&index).map(|waiting| &mut waiting.history))?;
        change(history);
        Some(*history)
    }

    /// A shard that waits does so until this time at least.
    pub(crate) fn delay(&mut self, index: ShardIndex, until: u64) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.until = waiting.until.max(until);
        }
    }

    /// Gives up a shard that is leased or waits. Returns who had it until then.
    pub(crate) fn fail(&mut self, index: ShardIndex) -> Option<Leased> {
        let leased = self.leased.remove(&index);
        if leased.is_some() || self.waiting.remove(&index).is_some() {
            self.failed.insert(index);
        }
        leased
    }

    /// Takes every lease away: the job has ended.
    pub fn end_all(&mut self, now: u64) -> Vec<(ShardIndex, Leased)> {
        let ended = std::mem::take(&mut self.leased);
        for (&index, leased) in &ended {
            self.waiting.insert(index, Waiting { until: now, unclaimed: false, history: leased.history });
        }
        ended.into_iter().collect()
    }

    /// When the next waiting shard becomes due. One that is due already waits for a worker, not for the time.
    #[must_use]
    pub fn next_due(&self, now: u64) -> Option<u64> {
        self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > now).min()
    }

    /// After a take-over every worker has said what it holds: what nobody claimed is free (P18).
    pub fn release_claims(&mut self, now: u64) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.unclaimed) {
            *waiting = Waiting { until: waiting.until.min(now), unclaimed: false, ..*waiting };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::NotNow;

    fn lease(sequence: u64) -> Lease {
        let epoch = Epoch { sequence, ..Epoch::default() };
        Lease { epoch, seat: Seat(0), deadline: 10, replaces: None, since: 0, from: 0, position: 0 }
    }

    fn epoch(sequence: u64) -> Epoch {
        lease(sequence).epoch
    }

    const ASKING: Asking = Asking { now: 100, claims_stand: false, with_suspect: false, limit: u32::MAX, window: 4 };

    fn candidate(shards: &Shards, asking: &Asking) -> Result<ShardIndex, NotNow> {
        shards.candidate(asking, |_, _| false)
    }

    fn next(shards: &Shards) -> Option<ShardIndex> {
        candidate(shards, &ASKING).ok()
    }

    #[test]
    fn retries_go_before_new_shards_and_the_window_counts_holes() {
        let mut shards = Shards::new(10);
        for index in 0..4 {
            assert_eq!(next(&shards), Some(index));
            shards.grant(index, lease(u64::from(index)));
        }
        assert_eq!(candidate(&shards, &ASKING), Err(NotNow::WindowFull), "four holes are the window");
        assert!(shards.published(3).0);
        assert_eq!(next(&shards), Some(4), "distance does not count");
        assert!(shards.wait(1, epoch(1), 50, History { failures: 1, ..History::default() }));
        assert_eq!(next(&shards), Some(1));
        assert_eq!(candidate(&shards, &Asking { now: 49, ..ASKING }), Ok(4));
    }

    #[test]
    fn a_published_shard_is_believed_from_anyone_and_once() {
        let mut shards = Shards::new(3);
        shards.grant(0, lease(1));
        assert_eq!(shards.published(0), (true, Some(Leased::alone(lease(1), History::default()))));
        assert_eq!(shards.published(0), (false, None));
        assert_eq!(shards.published(2), (true, None));
        assert_eq!((shards.next(), shards.limbo().to_string().as_str()), (3, "1"));
        assert_eq!(shards.published(3), (false, None));
        assert_eq!(next(&shards), Some(1));
    }

    #[test]
    fn a_stale_epoch_says_nothing() {
        let mut shards = Shards::new(1);
        shards.grant(0, lease(2));
        let checkpoint = Checkpoint { number: 1, position: 5, digest: 0 };
        assert!(!shards.checkpoint(0, epoch(1), checkpoint) && !shards.give_up(0, epoch(1)));
        assert!(!shards.wait(0, epoch(1), 0, History::default()) && !shards.renew(0, epoch(1), 99, 0));
        assert!(shards.checkpoint(0, epoch(2), checkpoint));
        assert!(!shards.checkpoint(0, epoch(2), checkpoint), "the same again is no news");
    }

    #[test]
    fn after_a_take_over_the_unknown_is_in_limbo_until_claims_fall() {
        let waiting = Waiting { until: 90, unclaimed: true, history: History::default() };
        let done = "0,2".parse().unwrap();
        let mut shards = Shards::resume(10, 5, done, RangeSet::default(), BTreeMap::from([(3, waiting)]));
        assert_eq!(shards.limbo().to_string(), "1,4");
        assert_eq!(shards.pending(), 7);
        let asking = Asking { now: 50, window: 9, ..ASKING };
        let while_claims_stand = candidate(&shards, &Asking { claims_stand: true, ..asking });
        assert_eq!(while_claims_stand, Ok(5), "what was never granted is free at once");
        assert_eq!(candidate(&shards, &asking), Ok(1));
        shards.release_claims(50);
        assert_eq!(candidate(&shards, &asking), Ok(3));
    }

    #[test]
    fn counts_always_add_up() {
        let mut shards = Shards::new(6);
        shards.grant(0, lease(0));
        shards.grant(4, lease(4));
        shards.grant(1, lease(1));
        shards.published(4);
        shards.give_up(1, epoch(1));
        let all = shards.done().len() + shards.failed().len() + shards.pending();
        assert_eq!(all as usize + shards.holes(), 6);
    }
}
