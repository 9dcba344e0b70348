//! How fast workers are, and who is too slow for what is left.

use super::{Coordinator, Worker};
use crate::{Now, shards::Seat};

/// How long a worker takes for a shard, from how long it held leases and how many it finished.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    /// Milliseconds in which it held at least one lease, up to `since`.
    busy: u64,
    /// It holds leases since then.
    since: Option<u64>,
    done: u64,
}

impl Speed {
    /// It holds some leases now, or none.
    pub(super) fn holds(&mut self, now: u64, some: bool) {
        match (self.since, some) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.busy += now.saturating_sub(since);
                self.since = None;
            }
            _ => {}
        }
    }

    pub(super) fn finished(&mut self) {
        self.done += 1;
    }

    /// Milliseconds of one slot for one shard. Before the first is done, the time so far: it is not less than that.
    fn per_shard(&self, now: u64, slots: u32) -> u64 {
        let busy = self.busy + self.since.map_or(0, |since| now.saturating_sub(since));
        busy.saturating_mul(u64::from(slots)) / self.done.max(1)
    }
}

impl Worker {
    pub(super) fn shard_millis(&self, now: Now) -> u64 {
        self.speed.per_shard(now.millis, self.slots)
    }
}

impl Coordinator {
    /// Whether the others would have done all that is left, this shard too, before this worker has done the shard: then it
    /// would only make everyone wait. Asked at the end of a job, when no more is left than the slots there are.
    pub(super) fn is_too_slow(&self, now: Now, seat: Seat) -> bool {
        let left = u64::from(self.shards.pending()) + self.shards.waiting().len() as u64;
        // Asked for every grant: while much is left the answer must cost nothing.
        if left > self.workers.len() as u64 * u64::from(self.job.slots) {
            return false;
        }
        // Nothing is left to workers that will be given nothing: all would wait for ever.
        let failing = self.failing_nodes(now);
        let gets = |worker: &Worker| self.takes_leases(now, worker) && !failing.contains(worker.node.as_str());
        let others = || self.workers.iter().filter(|(other, worker)| **other != seat && gets(worker));
        let Some(worker) = self.workers.get(&seat).filter(|worker| worker.speed.done > 0) else { return false };
        let slots: u64 = others().map(|(_, worker)| u64::from(worker.slots)).sum();
        let proven = others().filter(|(_, worker)| worker.speed.done > 0);
        let Some(slowest) = proven.map(|(_, worker)| worker.shard_millis(now)).max() else { return false };
        // Rounds that the others need, the one that they are in included.
        let rounds = left.div_ceil(slots.max(1)) + 1;
        worker.shard_millis(now) > slowest.saturating_mul(rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_with_leases_counts() {
        let mut speed = Speed::default();
        speed.holds(100, true);
        speed.holds(150, true);
        assert_eq!(speed.per_shard(300, 2), 400, "not less than the time so far");
        speed.finished();
        speed.finished();
        speed.holds(300, false);
        assert_eq!(speed.per_shard(9000, 2), 200);
        speed.holds(9000, true);
        assert_eq!(speed.per_shard(9100, 2), 300);
    }
}
