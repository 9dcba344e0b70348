//! The output store of the model: create-only (P5), and what was made durable in it.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{
    ids::{Epoch, ShardIndex},
    message::{Checkpoint, Target},
};
use hyperflow_core::ranges::RangeSet;

#[derive(Default)]
pub struct Store {
    pub shards: u32,
    /// The job is being deleted.
    pub deleting: bool,
    published: BTreeMap<ShardIndex, Epoch>,
    checkpoints: BTreeSet<(Target, u64, u64, u64)>,
    /// Every shard that a stored status ever called done.
    committed: RangeSet,
    /// How often the run came to each path.
    pub visited: BTreeMap<&'static str, u64>,
}

impl Store {
    pub fn new(shards: u32) -> Self {
        Self { shards, ..Self::default() }
    }

    pub fn visit(&mut self, path: &'static str) {
        *self.visited.entry(path).or_default() += 1;
    }

    /// True for the first.
    pub fn publish(&mut self, index: ShardIndex, epoch: Epoch) -> bool {
        let first = !self.published.contains_key(&index);
        if first {
            self.published.insert(index, epoch);
        } else {
            self.visit("late publish found");
        }
        first
    }

    pub fn is_published(&self, target: Target) -> bool {
        matches!(target, Target::Shard(index) if self.published.contains_key(&index))
    }

    pub fn published(&self) -> impl Iterator<Item = ShardIndex> {
        self.published.keys().copied()
    }

    pub fn checkpoint(&mut self, target: Target, checkpoint: Checkpoint) {
        self.checkpoints.insert((target, checkpoint.number, checkpoint.position, checkpoint.digest));
    }

    pub fn is_durable(&self, target: Target, checkpoint: Checkpoint) -> bool {
        self.checkpoints.contains(&(target, checkpoint.number, checkpoint.position, checkpoint.digest))
    }

    /// A status was stored that calls these done: it may lag the store, and never lead it.
    pub fn commit(&mut self, done: &RangeSet) {
        for index in done.iter() {
            assert!(self.published.contains_key(&index), "status calls shard {index} done before it is published (P5)");
            self.committed.insert(index);
        }
    }

    /// A worker was told that status knows: it had better. What was temporary of the shard is deleted.
    pub fn clean(&mut self, index: ShardIndex) {
        assert!(self.committed.contains(index), "shard {index} was acknowledged before status held it (P12)");
        self.checkpoints.retain(|(target, ..)| *target != Target::Shard(index));
    }
}
