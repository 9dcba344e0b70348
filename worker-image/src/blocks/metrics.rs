//! What is counted of blocks.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Where bytes came from and what for, as labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Bytes {
    /// `local`, `peer` or `source`.
    pub from: &'static str,
    /// `task` or `load`.
    pub r#for: &'static str,
}

/// The state of replicas, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    /// `ready`, `stale` or `corrupt`.
    pub state: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    /// Bytes of blocks read.
    pub bytes: Family<Bytes, Counter>,
    /// Replicas in the store.
    pub replicas: Family<State, Gauge>,
    /// Requests and connections that were refused.
    pub refused: Counter,
    /// Bytes of all replicas.
    pub used: Gauge,
}

impl BlockMetrics {
    /// Lets them be seen.
    pub fn register(&self, registry: &mut Registry) {
        let bytes = "Bytes of blocks read, by where they came from and what for";
        registry.register_with_unit("block", bytes, Unit::Bytes, self.bytes.clone());
        registry.register("blocks", "Replicas of blocks in the store, by state", self.replicas.clone());
        let refused = "Requests for blocks, and connections, that were refused";
        registry.register("block_fetches_refused", refused, self.refused.clone());
        registry.register_with_unit("block_store", "Bytes of all replicas", Unit::Bytes, self.used.clone());
    }

    /// Bytes were read for a task.
    pub fn for_task(&self, from: &'static str, bytes: u64) {
        self.bytes.get_or_create(&Bytes { from, r#for: "task" }).inc_by(bytes);
    }

    /// Bytes were read for the store.
    pub fn for_load(&self, from: &'static str, bytes: u64) {
        self.bytes.get_or_create(&Bytes { from, r#for: "load" }).inc_by(bytes);
    }

    /// So many replicas are in this state.
    pub fn set(&self, state: &'static str, replicas: u64) {
        self.replicas.get_or_create(&State { state }).set(i64::try_from(replicas).unwrap_or(i64::MAX));
    }
}
