//! What a seed settles before its run begins: the job, and what is wrong with it.

use hyperflow_api::{ShardJobStatus, ids::JobUid, ids::ShardIndex};
use hyperflow_core::coordinator::{Limits, Seen};
use serde_json::{Value, json};

use super::chance::Chance;

pub struct Scenario {
    pub shards: u32,
    pub slots: u32,
    /// So many times slower than the fastest.
    pub pace: u64,
    /// A shard that kills every worker that runs it.
    pub poison: Option<ShardIndex>,
    /// A shard that wants more memory than a worker has.
    pub hungry: Option<ShardIndex>,
    pub max_attempts: u32,
    /// The operator may read nodes.
    pub nodes_known: bool,
    /// The API server may be restored from an older state.
    pub restores: bool,
    /// When the user deletes the job.
    pub deleted_at: Option<u64>,
    /// No worker is lost without a word of the cluster, but by the shards above.
    pub gentle: bool,
    pub limits: Limits,
}

impl Scenario {
    pub fn draw(chance: &mut Chance) -> (Self, Seen) {
        let shards = u32::try_from(1 + chance.below(60)).unwrap();
        let some_shard = |chance: &mut Chance| u32::try_from(chance.below(shards.into())).unwrap();
        let poison = chance.once_in(8).then(|| some_shard(chance));
        let hungry = chance.once_in(8).then(|| some_shard(chance)).filter(|index| poison != Some(*index));
        let scenario = Self {
            shards,
            slots: u32::try_from(1 + chance.below(3)).unwrap(),
            pace: chance.pick(&[1, 1, 3, 10]).unwrap(),
            poison,
            hungry,
            max_attempts: if hungry.is_some() { 4 } else { 10 },
            nodes_known: !chance.once_in(4),
            restores: chance.once_in(4),
            deleted_at: chance.once_in(8).then(|| chance.below(12_000)),
            gentle: (poison.is_some() || hungry.is_some()) && chance.once_in(2),
            limits: Limits { lease_millis: 2000, orphan_seconds: if chance.once_in(8) { 4 } else { 600 } },
        };
        let mut spec = if chance.once_in(2) { copy() } else { noop(shards) };
        spec["parallelism"] = (1 + chance.below(4)).into();
        spec["workers"]["slots"] = scenario.slots.into();
        spec["failurePolicy"] =
            json!({"maxAttempts": scenario.max_attempts, "backoff": {"initialSeconds": 1, "maxSeconds": 4}});
        let seen = Seen {
            uid: JobUid("5b1e0c44".into()),
            namespace: "n".into(),
            name: "j".into(),
            generation: 1,
            spec: serde_json::from_value(spec).unwrap(),
            status: ShardJobStatus::default(),
            deleting: false,
            abandoned: false,
        };
        (scenario, seen)
    }
}

fn copy() -> Value {
    json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"},
        "workers": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    })
}

fn noop(shards: u32) -> Value {
    json!({"source": {"numbers": {"count": shards}}, "task": {"noop": {}}, "workers": {}})
}
