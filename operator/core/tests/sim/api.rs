//! The API server of the model: one resource with a version, writes by compare-and-swap, outages, and restores.

use std::collections::BTreeMap;

use hyperflow_api::{ShardJobStatus, ids::ShardIndex, message::Checkpoint};
use hyperflow_core::{
    coordinator::Seen,
    invariants::{self, demand},
    ranges::RangeSet,
};

use super::store::Store;

/// Kept of the past, for restores.
const SNAPSHOTS: usize = 64;

pub struct Api {
    pub seen: Seen,
    pub version: u64,
    /// It answers nobody until then.
    pub away_until: u64,
    /// The object was let go.
    pub gone: bool,
    /// Every shard that a stored status ever called done.
    pub committed: RangeSet,
    /// The newest checkpoint of each shard that was acknowledged since the last restore.
    pub acknowledged: BTreeMap<ShardIndex, Checkpoint>,
    snapshots: Vec<ShardJobStatus>,
}

impl Api {
    pub fn new(seen: Seen) -> Self {
        Self {
            seen,
            version: 1,
            away_until: 0,
            gone: false,
            committed: RangeSet::default(),
            acknowledged: BTreeMap::new(),
            snapshots: Vec::new(),
        }
    }

    /// Stores a status on top of the version that it was made for. What is stored never goes back.
    pub fn write(&mut self, based_on: u64, status: &ShardJobStatus, store: &mut Store) -> bool {
        if based_on != self.version || self.gone {
            return false;
        }
        demand(invariants::status_is_monotone(&self.seen.status, status));
        let done = done_in(status);
        if status.run > self.seen.status.run && self.seen.status.run.is_some() {
            self.another_run(status, &done);
            store.begin_run(u32::try_from(status.run.unwrap()).unwrap());
        }
        demand(invariants::status_never_leads(&done, |index| store.is_published_for_good(index)));
        done.iter().for_each(|index| {
            self.committed.insert(index);
        });
        self.seen.status = status.clone();
        self.version += 1;
        self.snapshots.push(status.clone());
        if self.snapshots.len() > SNAPSHOTS {
            self.snapshots.remove(0);
        }
        true
    }

    /// A run of what is not published begins (P25): what is published stays, and it has the nonce that it was asked for by.
    fn another_run(&mut self, status: &ShardJobStatus, done: &RangeSet) {
        let before = &self.seen.status;
        let forgotten = done_in(before).iter().find(|index| !done.contains(*index));
        assert!(forgotten.is_none(), "P25 what is published stays: run {:?} forgot shard {forgotten:?}", status.run);
        assert_eq!(status.run, before.run.map(|run| run + 1), "P25 one run after the other");
        assert_ne!(status.observed_rerun_nonce, before.observed_rerun_nonce, "P25 a nonce asks once");
        let ended = |kind: &str| status.conditions.iter().any(|it| it.type_ == kind && it.status == "True");
        let nothing = status.shards.as_ref().is_some_and(|shards| shards.succeeded == shards.total);
        assert!(nothing || !ended("Complete") && !ended("Failed"), "P25 a run begins unfinished");
        self.acknowledged.clear();
    }

    /// The user changes the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen);
        self.seen.generation += 1;
        self.version += 1;
    }

    /// Status is what it was so many writes ago. Versions go on rising, as they do when they are restored by the book.
    pub fn restore(&mut self, depth: u64) -> bool {
        let place = self.snapshots.len().checked_sub(1 + usize::try_from(depth).unwrap());
        let Some(place) = place else { return false };
        self.seen.status = self.snapshots[place].clone();
        self.snapshots.truncate(place + 1);
        self.version += 1;
        self.acknowledged.clear();
        true
    }
}

pub fn done_in(status: &ShardJobStatus) -> RangeSet {
    status.shards.as_ref().map_or("", |shards| &shards.completed_indexes).parse().unwrap()
}
