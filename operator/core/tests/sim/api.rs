//! The API server of the model: one resource with a version, writes by compare-and-swap, outages, and restores.

use hyperflow_api::{ShardJobStatus, ids::Takeover};
use hyperflow_core::{coordinator::Seen, ranges::RangeSet};

use super::{chance::Chance, store::Store};

/// Kept of the past, for restores.
const SNAPSHOTS: usize = 64;

/// A write whose writer waits for no answer any more.
pub struct Late {
    pub at: u64,
    pub based_on: u64,
    pub status: Box<ShardJobStatus>,
}

pub struct Api {
    pub seen: Seen,
    pub version: u64,
    /// It answers nobody until then.
    pub away_until: u64,
    /// The object was let go.
    pub gone: bool,
    pub late: Vec<Late>,
    snapshots: Vec<ShardJobStatus>,
}

impl Api {
    pub fn new(seen: Seen) -> Self {
        Self { seen, version: 1, away_until: 0, gone: false, late: Vec::new(), snapshots: Vec::new() }
    }

    pub fn is_away(&self, now: u64) -> bool {
        now < self.away_until
    }

    /// Stores a status on top of the version that it was made for. What is stored never goes back.
    pub fn write(&mut self, based_on: u64, status: &ShardJobStatus, store: &mut Store) -> bool {
        if based_on != self.version || self.gone {
            return false;
        }
        let (before, after) = (done_in(&self.seen.status), done_in(status));
        assert!(before.iter().all(|index| after.contains(index)), "status forgot a shard: {before} then {after}");
        store.commit(&after);
        if let Some(old) = takeover_of(&self.seen.status) {
            let new = takeover_of(status).unwrap();
            assert!(new.term > old.term || new == old, "a term that was not raised: {old:?} then {new:?}");
        }
        self.seen.status = status.clone();
        self.version += 1;
        self.snapshots.push(status.clone());
        if self.snapshots.len() > SNAPSHOTS {
            self.snapshots.remove(0);
        }
        true
    }

    /// The user changes the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen);
        self.seen.generation += 1;
        self.version += 1;
    }

    /// Status is what it was some time ago. Versions go on rising, as they do when they are restored by the book.
    pub fn restore(&mut self, chance: &mut Chance) {
        let place = usize::try_from(chance.below(self.snapshots.len() as u64)).unwrap();
        if let Some(status) = self.snapshots.get(place) {
            self.seen.status = status.clone();
            self.snapshots.truncate(place + 1);
            self.version += 1;
        }
    }

    /// Writes that nobody waits for arrive after all.
    pub fn late_writes_arrive(&mut self, now: u64, store: &mut Store) {
        if self.is_away(now) {
            return;
        }
        for Late { based_on, status, .. } in self.late.extract_if(.., |late| late.at <= now).collect::<Vec<_>>() {
            if self.write(based_on, &status, store) {
                store.visit("late write stored");
            }
        }
    }
}

pub fn done_in(status: &ShardJobStatus) -> RangeSet {
    status.shards.as_ref().map_or("", |shards| &shards.completed_indexes).parse().unwrap()
}

pub fn takeover_of(status: &ShardJobStatus) -> Option<Takeover> {
    let recovery = status.recovery.as_ref()?;
    let random = u64::from_str_radix(&recovery.takeover, 16).unwrap();
    Some(Takeover { term: u64::try_from(recovery.term).unwrap(), random })
}
