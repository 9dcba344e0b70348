//! What people and the next operator process read back.
//!
//! Everything but `recovery` is for people and tools. `recovery` is the operator's own note to its successor: compact
//! strings whose form is documented in `hyperflow-core`'s `recovery.rs`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of a ShardJob. Every optional field is left out rather than written as null: the API server refuses
/// null in what the scale subresource reads.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ShardJobStatus {
    /// The `metadata.generation` that this status speaks of; -1 until an operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Planned, WorkersAvailable, Suspended, Complete and Failed, and for GitOps tools (kstatus) Reconciling and Stalled.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// For kubectl columns; not part of the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
    /// When an operator first accepted the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job became Complete or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the job will be complete if it goes on as it does now. Estimated while shards are being published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<Time>,
    /// Which run of the job this is, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<i32>,
    /// The `spec.rerun.nonce` that this run began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub observed_rerun_nonce: Option<String>,
    /// The frozen list of inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Counts that add up to `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardCounts>,
    /// How fast shards are published now. Estimated with `estimatedCompletionTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkerCounts>,
    /// At most ten samples, by class and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<FailureSample>,
    /// Copies of the input on the nodes' disks, while the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<BlockCounts>,
    /// What was published, shard by shard; set when the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportStatus>,
    /// The operator's own notes, enough for another operator to go on. GitOps tools should ignore this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// Texts for kubectl columns.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Display {
    /// A word: Unseen, Planning, Running, Suspended, Complete, Failed, Deleting.
    pub status: String,
    /// `812/1000`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// `15:24Z`, on another day `2026-11-24 15:24Z`: `estimatedCompletionTime` as a text, for a column of dates knows no
    /// future.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub eta: String,
}

/// How fast shards are published.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Throughput {
    /// Shards a minute.
    pub shards_per_minute: i64,
    /// Bytes of results a second.
    pub bytes_per_second: i64,
}

/// The frozen list of inputs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanStatus {
    /// Number of shards.
    pub shards: i32,
    /// Number of input files; 0 for numbers.
    pub files: i64,
    /// Bytes of all input.
    pub bytes: i64,
    /// Content digest of the plan, `blake3:…`.
    pub digest: String,
    /// Where the plan is kept; absent for numbers, whose plan is arithmetic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Counts of shards; they add up to `total`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ShardCounts {
    /// All of the plan.
    pub total: i32,
    /// Published.
    pub succeeded: i32,
    /// Given up.
    pub failed: i32,
    /// Leased to a worker.
    pub active: i32,
    /// Waiting for another attempt.
    pub waiting: i32,
    /// Not leased yet.
    pub pending: i32,
    /// Succeeded shards in the syntax of an Indexed Job: `0-811,813`.
    #[schemars(length(max = 131_072))]
    pub completed_indexes: String,
    /// Failed shards in the same syntax.
    #[schemars(length(max = 131_072))]
    pub failed_indexes: String,
}

/// Copies of the input on the nodes' disks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockCounts {
    /// Groups of blocks that the plan has.
    pub groups: i32,
    /// Those with fewer whole copies than `spec.blocks.replicas`.
    pub under_replicated: i32,
    /// Whether copies outlive the pods: Node, Pod, or Mixed.
    #[schemars(length(max = 16))]
    pub kept_by: String,
}

/// The pool of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct WorkerCounts {
    /// Pods there should be.
    pub desired: i32,
    /// Pods there are.
    pub current: i32,
    /// Workers in session with the operator.
    pub ready: i32,
    /// Label selector of the pods, for the scale subresource.
    pub selector: String,
}

/// Failures alike, shown by the latest of them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FailureSample {
    /// `Application`, `WorkerLost`, …
    pub class: String,
    /// A word for programs.
    pub reason: String,
    /// How many so far.
    pub count: i32,
    /// One shard that failed so; absent when no shard did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<i32>,
    /// Where the latest happened.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// What happened and what is done about it.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When the latest happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,
}

/// What was published, shard by shard: a file with a JSON object on each line.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ReportStatus {
    /// Where it is.
    pub url: String,
    /// Content digest, `blake3:…`.
    pub digest: String,
}

/// The operator's own notes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Recovery {
    /// Version of the form of these notes.
    pub format_version: i32,
    /// Rises by one each time an operator process takes the job over (P1).
    pub term: i64,
    /// 64 random bits of that take-over, in hex.
    pub takeover: String,
    /// Digest of source, task and output as they were when the job was first taken over (P4).
    pub frozen: String,
    /// How the job fails, once that is decided and until it has: `InputChanged` and a message.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub verdict: String,
    /// The last command has succeeded, and the job has not ended yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub finalized: bool,
    /// Shards below this may have been leased; none at or above it was.
    pub reserved_through: i32,
    /// `35/u1763900000`: seconds that the job was active up to a moment, since which it is active; `35` while it rests.
    #[schemars(length(max = 64))]
    pub clock: String,
    /// `w0=0d1f3c2a@node-3,…`: the workers that `attempts` speak of.
    #[schemars(length(max = 262_144))]
    pub workers: String,
    /// Leased shards: `8127/w0/3.24795/a2/c3@67108864:9f2c07aa01b2c3d4,…`.
    #[schemars(length(max = 262_144))]
    pub attempts: String,
    /// Shards that wait for another attempt: `17/u1763900000/a2/l1,…`.
    #[schemars(length(max = 262_144))]
    pub waiting: String,
    /// Groups of blocks, by store: described in `hyperflow_core::blocks`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 262_144))]
    pub blocks: String,
}
