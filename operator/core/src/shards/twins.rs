//! Two attempts of one shard side by side (P19): fencing is by membership in a set of two at most.

use hyperflow_api::{
    ids::{Epoch, ShardIndex},
    message::Checkpoint,
};

use super::{History, Lease, Leased, Seat, Shards};

impl Leased {
    /// The only attempt of a shard.
    #[must_use]
    pub fn alone(lease: Lease, history: History) -> Self {
        Self { lease, twin: None, history }
    }

    /// Its leases: one, or two.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        [Some(&self.lease), self.twin.as_ref()].into_iter().flatten()
    }

    pub(super) fn leases_mut(&mut self) -> impl Iterator<Item = &mut Lease> {
        [Some(&mut self.lease), self.twin.as_mut()].into_iter().flatten()
    }

    /// Something may still be said under this epoch.
    #[must_use]
    pub fn is_live(&self, epoch: Epoch) -> bool {
        self.leases().any(|lease| lease.epoch == epoch)
    }

    /// The lease of a worker: never two of one shard.
    #[must_use]
    pub fn of(&self, seat: Seat) -> Option<Lease> {
        self.leases().copied().find(|lease| lease.seat == seat)
    }
}

impl Shards {
    /// Something may still be said of the shard under this epoch.
    #[must_use]
    pub fn is_live(&self, index: ShardIndex, epoch: Epoch) -> bool {
        self.leased.get(&index).is_some_and(|leased| leased.is_live(epoch))
    }

    /// Leases a shard that one worker has to a second one as well. Returns what came before, or nothing if it may not be.
    pub fn duplicate(&mut self, index: ShardIndex, twin: Lease) -> Option<History> {
        let leased = self.leased.get_mut(&index)?;
        if leased.twin.is_some() || leased.lease.seat == twin.seat {
            return None;
        }
        leased.twin = Some(twin);
        Some(leased.history)
    }

    /// There are two attempts, and this is one of them.
    #[must_use]
    pub fn is_one_of_two(&self, index: ShardIndex, epoch: Epoch) -> bool {
        self.leased.get(&index).is_some_and(|leased| leased.twin.is_some() && leased.is_live(epoch))
    }

    /// Ends one of two attempts; the other goes on alone, and the shard remembers nothing of it. False if it is not one of
    /// two.
    pub fn end_one_of_two(&mut self, index: ShardIndex, epoch: Epoch) -> bool {
        if !self.is_one_of_two(index, epoch) {
            return false;
        }
        let Some(leased) = self.leased.get_mut(&index) else { return false };
        if let Some(twin) = leased.twin.take().filter(|twin| twin.epoch != epoch) {
            leased.lease = twin;
        }
        true
    }

    /// A shard waits, and nothing but a worker is missing.
    #[must_use]
    pub fn is_any_due(&self, now: u64) -> bool {
        self.waiting.values().any(|waiting| waiting.until <= now)
    }
}

/// Whether a checkpoint takes the place of the one that is known. Of one attempt numbers and positions rise together; of two
/// that run side by side the furthest counts, whatever its number.
pub(super) fn is_further(known: Option<Checkpoint>, new: Checkpoint) -> bool {
    known.is_none_or(|known| (known.position, known.number) < (new.position, new.number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(sequence: u64, seat: u32) -> Lease {
        let epoch = Epoch { sequence, ..Epoch::default() };
        Lease { epoch, seat: Seat(seat), deadline: 10, replaces: None, since: 0, from: 0, position: 0 }
    }

    fn two() -> Shards {
        let mut shards = Shards::new(3);
        shards.grant(0, lease(1, 1));
        assert_eq!(shards.duplicate(0, lease(2, 1)), None, "not twice on one worker");
        assert!(shards.duplicate(0, lease(2, 2)).is_some());
        assert_eq!(shards.duplicate(0, lease(3, 3)), None, "not three at a time");
        shards
    }

    fn epoch(sequence: u64) -> Epoch {
        lease(sequence, 0).epoch
    }

    fn at(number: u64, position: u64) -> Checkpoint {
        Checkpoint { number, position, digest: number }
    }

    #[test]
    fn of_two_attempts_the_furthest_checkpoint_counts() {
        let mut shards = two();
        assert!(shards.checkpoint(0, epoch(1), at(4, 100)));
        assert!(shards.checkpoint(0, epoch(2), at(1, 150)));
        assert!(!shards.checkpoint(0, epoch(1), at(5, 140)), "it is behind the other");
        assert!(!shards.checkpoint(0, epoch(3), at(9, 900)), "nobody's");
        assert!(!shards.checkpoint(0, epoch(2), at(1, 150)), "said again");
        assert_eq!(shards.history(0).unwrap().checkpoint, Some(at(1, 150)));
    }

    #[test]
    fn the_first_result_ends_both() {
        let mut shards = two();
        let (news, ended) = shards.published(0);
        assert!(news);
        assert_eq!(ended.unwrap().leases().map(|lease| lease.seat.0).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_end_of_one_of_two_ends_nothing_else() {
        for (ends, stays) in [(1, 2), (2, 1)] {
            let mut shards = two();
            assert!(!shards.give_up(0, epoch(ends)) && !shards.wait(0, epoch(ends), 0, History::default()));
            assert!(shards.end_one_of_two(0, epoch(ends)));
            let left: Vec<_> = shards.leased()[&0].leases().map(|lease| lease.epoch).collect();
            assert_eq!(left, [epoch(stays)]);
            assert!(!shards.end_one_of_two(0, epoch(stays)), "it is the last");
            assert!(shards.give_up(0, epoch(stays)));
        }
    }
}
