//! What a seed settles before its run begins: the job, the cluster, and what is wrong with them.

use hyperflow_api::{ShardJobStatus, ids::JobUid, ids::ShardIndex};
use hyperflow_core::coordinator::{Limits, Seen};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chance::Chance;

pub const LEASE_MILLIS: u64 = 2000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Files are copied to an output; or else nothing is done to numbers.
    pub copies: bool,
    pub shards: u32,
    pub parallelism: u32,
    pub slots: u32,
    pub machines: u64,
    /// So many times slower than the fastest.
    pub pace: u64,
    /// Pods that are slower than others: one in so many.
    pub slow: Option<u64>,
    /// So many times.
    #[serde(default = "six")]
    pub slow_by: u64,
    /// A shard that kills every worker that runs it.
    pub poison: Option<ShardIndex>,
    /// A shard that wants more memory than a worker has.
    pub hungry: Option<ShardIndex>,
    /// A shard of which no attempt can do better: it ends the job.
    #[serde(default)]
    pub fatal: Option<ShardIndex>,
    /// The task fails in one attempt of so many.
    pub failing: Option<u64>,
    pub max_attempts: u32,
    /// The operator may read nodes.
    pub nodes_known: bool,
    pub orphan_seconds: u32,
    /// Whatever ends a worker is explained at once, but for the shards above.
    pub gentle: bool,
    /// What is far behind is run a second time.
    #[serde(default)]
    pub speculation: bool,
    /// There is a last command.
    #[serde(default)]
    pub finally: bool,
}

fn six() -> u64 {
    6
}

impl Scenario {
    pub fn draw(chance: &mut Chance) -> Self {
        let most = if chance.once_in(3) { 60 } else { 16 };
        let shards = u32::try_from(1 + chance.below(most)).unwrap();
        let some_shard = |chance: &mut Chance| u32::try_from(chance.below(shards.into())).unwrap();
        let poison = chance.once_in(8).then(|| some_shard(chance));
        let hungry = chance.once_in(8).then(|| some_shard(chance)).filter(|index| poison != Some(*index));
        let pace = chance.pick(&[1, 1, 2, 4]).unwrap();
        let failing = chance.once_in(2).then(|| 10 + chance.below(50));
        let gentle = chance.once_in(8);
        let fatal = chance.once_in(12).then(|| some_shard(chance));
        let fatal = fatal.filter(|index| ![poison, hungry].contains(&Some(*index)));
        let copies = !chance.once_in(4);
        // Of another chance, so that what came after it in older seeds comes as it did.
        let mut other = Chance(chance.0 ^ 0x0007_314e);
        let speculation = copies && other.once_in(3);
        Self {
            copies,
            shards,
            parallelism: u32::try_from(1 + chance.below(4)).unwrap(),
            slots: u32::try_from(1 + chance.below(3)).unwrap(),
            machines: 2 + chance.below(2),
            pace,
            slow: (pace == 1 && (chance.once_in(3) || speculation)).then_some(3),
            slow_by: if speculation { 10 } else { six() },
            poison,
            hungry,
            fatal,
            failing,
            max_attempts: if hungry.is_some() { 4 } else { 10 },
            nodes_known: gentle || !chance.once_in(4),
            orphan_seconds: if chance.once_in(8) { 4 } else { 600 },
            gentle,
            speculation,
            finally: copies && other.once_in(4),
        }
    }

    pub fn limits(&self) -> Limits {
        Limits { lease_millis: LEASE_MILLIS, orphan_seconds: self.orphan_seconds }
    }

    pub fn seen(&self) -> Seen {
        let mut spec = if self.copies { copy() } else { noop(self.shards) };
        if self.speculation {
            spec["speculation"] = json!({"mode": "Duplicate"});
        }
        if self.finally {
            spec["task"] = json!({"exec": {"image": "i", "command": ["work"], "input": "Stdin", "output": "Stdout"}});
            spec["finally"] = json!({"command": ["merge"]});
        }
        spec["parallelism"] = self.parallelism.into();
        spec["workers"]["slots"] = self.slots.into();
        spec["failurePolicy"] =
            json!({"maxAttempts": self.max_attempts, "backoff": {"initialSeconds": 1, "maxSeconds": 4}});
        Seen {
            uid: JobUid("5b1e0c44".into()),
            namespace: "n".into(),
            name: "j".into(),
            generation: 1,
            spec: serde_json::from_value(spec).unwrap(),
            status: ShardJobStatus::default(),
            deleting: false,
            abandoned: false,
        }
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
