//! The `ShardJob` resource as users write it: `hyperflow.dev/v1alpha1`.
//!
//! Only fields that work are here. Rules that the API server can check are CEL rules beside the field they speak of;
//! the core checks everything again, for clusters that hold objects made before a rule.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    CONTROLLER,
    blocks::Blocks,
    exec::Finally,
    failure::FailurePolicy,
    quantity::Quantity,
    rerun::Rerun,
    source::Source,
    speculation::Speculation,
    status::ShardJobStatus,
    task::{Output, Records, Task},
    workers::Workers,
};

/// Much data, a task, and a place for results. Hyperflow splits the work into shards, leases them to worker pods and
/// publishes every result exactly once.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "hyperflow.dev",
    version = "v1alpha1",
    kind = "ShardJob",
    doc = "Much data, a task, and a place for results: split into shards, run by a pool of worker pods, published exactly once.",
    namespaced,
    plural = "shardjobs",
    shortname = "shj",
    category = "hyperflow",
    status = "ShardJobStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.parallelism",
        status_replicas_path = ".status.workers.current",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.display.status"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.display.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.shards.failed"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.shards.active"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.workers.ready"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.display.eta"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Run", type_ = "integer", json_path = ".status.run", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Failed\")].reason",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be no more than 52 characters"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.plan) || self.spec.source == oldSelf.spec.source"
    )
    .message("is immutable once planned: create another ShardJob for other input")
    .field_path(".spec.source"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.plan) || self.spec.task == oldSelf.spec.task || \
         (has(self.spec.rerun) && (!has(oldSelf.spec.rerun) || self.spec.rerun.nonce != oldSelf.spec.rerun.nonce))"
    )
    .message(
        "may only be changed once planned together with a new `spec.rerun.nonce`: shards that run again then use the new \
         task"
    )
    .field_path(".spec.task"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.plan) || (has(self.spec.output) == has(oldSelf.spec.output) && \
         (!has(self.spec.output) || self.spec.output == oldSelf.spec.output))"
    )
    .message("is immutable once planned: results already published are there")
    .field_path(".spec.output"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.plan) || (has(self.spec.records) == has(oldSelf.spec.records) && \
         (!has(self.spec.records) || self.spec.records == oldSelf.spec.records))"
    )
    .message("is immutable once planned: the plan is there")
    .field_path(".spec.records"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.plan) || (has(self.spec.blocks) == has(oldSelf.spec.blocks) && \
         (!has(self.spec.blocks) || self.spec.blocks == oldSelf.spec.blocks))"
    )
    .message("is immutable once planned: workers keep blocks by it")
    .field_path(".spec.blocks"),
    validation = Rule::new(
        "has(self.spec.managedBy) == has(oldSelf.spec.managedBy) && (!has(self.spec.managedBy) || self.spec.managedBy \
         == oldSelf.spec.managedBy)"
    )
    .message("is immutable: create another ShardJob to have it managed by another controller")
    .field_path(".spec.managedBy")
)]
#[x_kube(
    validation = Rule::new(
        "!has(self.source.files) || !has(self.source.files.url) || (has(self.workers.volumeMounts) && \
         self.workers.volumeMounts.exists(m, self.source.files.url.startsWith('file://' + m.mountPath + '/')))"
    )
    .message(Message::Expression(
        "\"'\" + self.source.files.url + \"' must lie under the `mountPath` of an entry in `workers.volumeMounts`\"".into()
    ))
    .field_path(".source.files.url"),
    validation = Rule::new(
        "!has(self.output) || (has(self.workers.volumeMounts) && self.workers.volumeMounts.exists(m, \
         self.output.url.startsWith('file://' + m.mountPath + '/') && !(has(m.readOnly) && m.readOnly)))"
    )
    .message(Message::Expression(
        "\"'\" + self.output.url + \"' must lie under the `mountPath` of an entry in `workers.volumeMounts` that is \
         not `readOnly`\"".into()
    ))
    .field_path(".output.url"),
    validation = Rule::new(
        "!has(self.records) || (has(self.workers.volumeMounts) && self.workers.volumeMounts.exists(m, \
         self.records.url.startsWith('file://' + m.mountPath + '/') && !(has(m.readOnly) && m.readOnly)))"
    )
    .message(Message::Expression(
        "\"'\" + self.records.url + \"' must lie under the `mountPath` of an entry in `workers.volumeMounts` that is \
         not `readOnly`\"".into()
    ))
    .field_path(".records.url"),
    validation = Rule::new("!has(self.task.copy) || has(self.output)")
        .message("`output` is required by `task.copy`")
        .field_path(".output")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.task.copy) || has(self.source.files)")
        .message("`task.copy` needs `source.files`")
        .field_path(".task"),
    validation = Rule::new("!has(self.task.checksum) || (has(self.source.files) && self.source.files.boundary == 'File')")
        .message("`task.checksum` needs `source.files` with `boundary` 'File': a checksum is that of a whole file")
        .field_path(".task"),
    validation = Rule::new("!has(self.task.exec) || (self.task.exec.output == 'None') != has(self.output)")
        .message(
            "`task.exec` needs `output` for its results, unless `task.exec.output` is 'None': then `output` may not be set"
        )
        .field_path(".output"),
    validation = Rule::new(
        "!has(self.task.exec) || (has(self.source.files) ? self.task.exec.input != 'None' : \
         self.task.exec.input != 'Directory' && self.task.exec.input != 'Range')"
    )
    .message(
        "`task.exec.input` 'Directory' and 'Range' need `source.files`, and 'None' needs `source.items` or `source.numbers`"
    )
    .field_path(".task.exec.input"),
    validation = Rule::new(
        "!has(self.task.exec) || self.task.exec.input != 'None' || !has(self.source.items) || \
         self.source.items.itemsPerShard == 1"
    )
    .message("`task.exec.input` 'None' needs `source.items.itemsPerShard` 1: HYPERFLOW_ITEM is one item")
    .field_path(".task.exec.input"),
    validation = Rule::new(
        "!has(self.task.exec) || !has(self.source.files) || !(self.task.exec.input in ['File', 'Range']) || \
         self.source.files.boundary != 'File' || (has(self.source.files.filesPerShard) ? \
         self.source.files.filesPerShard == 1 : !has(self.source.files.bytesPerShard))"
    )
    .message(
        "`task.exec.input` 'File' and 'Range' need one file per shard: `source.files.filesPerShard` 1; or use 'Directory'"
    )
    .field_path(".task.exec.input"),
    validation = Rule::new("!has(self.finally) || has(self.task.exec)")
        .message("`finally` runs in the image of `task.exec`, which is not set")
        .field_path(".finally"),
    validation = Rule::new("!has(self.finally) || has(self.output) || has(self.records)")
        .message("`finally` reads the report, which needs a place: set `records`")
        .field_path(".finally"),
    validation = Rule::new("!has(self.finally) || !has(self.finally.path) || has(self.output)")
        .message("`path` is relative to `output.url`, and there is no `output`")
        .field_path(".finally.path"),
    validation = Rule::new("!has(self.speculation) || self.speculation.mode != 'Duplicate' || has(self.output)")
        .message("'Duplicate' needs `output`: without it nothing tells which of two attempts was first")
        .field_path(".speculation.mode"),
    validation = Rule::new(
        "!has(self.rerun) || self.rerun.scope != 'All' || !has(self.output) || self.output.path.contains('{run}')"
    )
    .message("'All' needs {run} in `output.path`: what was published is never replaced")
    .field_path(".rerun.scope"),
    validation = Rule::new("!has(self.blocks) || has(self.source.files)")
        .message("`blocks` are pieces of files: they need `source.files`")
        .field_path(".blocks"),
    validation = Rule::new(
        "!has(self.blocks) || !has(self.blocks.volumeName) || (has(self.workers.volumes) && \
         self.workers.volumes.exists(v, v.name == self.blocks.volumeName))"
    )
    .message("must be the name of an entry in `workers.volumes`")
    .field_path(".blocks.volumeName"),
    validation = Rule::new(
        "!has(self.blocks) || !has(self.task.exec) || self.task.exec.input != 'Range'"
    )
    .message("`task.exec.input` 'Range' lets the program read the mounted file itself: use 'File' or 'Stdin' with `blocks`")
    .field_path(".task.exec.input"),
    validation = Rule::new(
        "!has(self.source.files) || !has(self.source.files.onChange) || self.source.files.onChange == 'Fail' || \
         has(self.blocks)"
    )
    .message("'UseBlocks' needs `blocks`")
    .field_path(".source.files.onChange"),
    validation = Rule::new("!has(self.task.noop) || !has(self.output)")
        .message("`task.noop` publishes nothing: remove `output`")
        .field_path(".task"),
    validation = Rule::new(
        "has(self.output) || has(self.records) || has(self.source.numbers) || \
         (has(self.source.items) && has(self.source.items.values))"
    )
    .message("`records` is required without `output`: the plan and the report need a place")
    .field_path(".records")
    .reason(Reason::FieldValueRequired),
    validation = Rule::new(
        "!has(self.output) || !has(self.source.files) || !has(self.source.files.url) || \
         self.output.url != self.source.files.url"
    )
    .message("must not be the source's `url`: results would be read as input")
    .field_path(".output.url"),
    validation = Rule::new(
        "!has(self.output) || !self.output.path.matches('[{](dir|name|stem|ext)[}]') || (has(self.source.files) && \
         self.source.files.boundary == 'File' && (has(self.source.files.filesPerShard) ? \
         self.source.files.filesPerShard == 1 : !has(self.source.files.bytesPerShard)))"
    )
    .message(
        "{dir}, {name}, {stem} and {ext} need one file per shard: `source.files.boundary` 'File' and `filesPerShard` 1"
    )
    .field_path(".output.path"),
    validation = Rule::new(
        "!has(self.output) || self.output.path.contains('{copy}') == (has(self.task.copy) && self.task.copy.copies > 1)"
    )
    .message("must contain {copy} when `task.copy.copies` is greater than 1, and may not contain it otherwise")
    .field_path(".output.path"),
)]
#[serde(rename_all = "camelCase")]
pub struct ShardJobSpec {
    /// What is processed. Exactly one of `files`, `items` and `numbers`. Frozen once planned.
    pub source: Source,
    /// What is done to each shard. Exactly one of `exec`, `copy`, `checksum` and `noop`. Once planned it changes only with
    /// a new `rerun.nonce`.
    pub task: Task,
    /// Runs once after all shards, if they succeeded, with the report as its input: merges parts, loads a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally: Option<Finally>,
    /// Where results go. Frozen once planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Where plan, records and report are kept; default `_hyperflow/` in the output. Required without `output` when there
    /// is a plan to keep. Frozen once planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<Records>,
    /// Most workers at a time, as in a Job. `kubectl scale` sets it.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 5000))]
    pub parallelism: i32,
    /// The worker pods.
    #[serde(default)]
    pub workers: Workers,
    /// What a failure does.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// How often progress inside a shard is kept; whichever comes first.
    #[serde(default)]
    pub checkpoint: CheckpointPolicy,
    /// What is done about shards that take much longer than others.
    #[serde(default)]
    pub speculation: Speculation,
    /// Keeps copies of the input on the nodes' disks. Needs `source.files`. Default: none are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// Runs shards of this job again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// Stops the job without losing anything: workers write checkpoints and leave, and go on from them when this is false
    /// again. As in a Job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Seconds that the job may take before it fails, as in a Job. The time in which it is suspended does not count, and
    /// suspending does not begin the count anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after the end of the job, however it ended, until the object is deleted, as in a Job. Results stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Which controller serves the job, as in a Job. This operator is `hyperflow.dev/shardjob-controller`, as is whoever
    /// is not named; it leaves a job of another controller alone. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9/._~%!$&()*+,;=:-]+$')")
            .message("must be a domain-prefixed path such as 'acme.io/controller'"),
    )]
    pub managed_by: Option<String>,
}

impl ShardJobSpec {
    /// Whether this operator serves the job, or another controller that `managedBy` names.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.managed_by.as_deref().is_none_or(|controller| controller == CONTROLLER)
    }
}

/// How often progress inside a shard is kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new(
        "!isQuantity(string(self.bytes)) || quantity(string(self.bytes)).compareTo(quantity('1Mi')) >= 0"
    )
    .message("must be at least 1Mi: every checkpoint is made durable before it counts")
    .field_path(".bytes"),
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPolicy {
    /// Most seconds between two checkpoints of an attempt.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: i32,
    /// Most bytes between two checkpoints of an attempt.
    #[serde(default = "checkpoint_bytes")]
    pub bytes: Quantity,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { period_seconds: five(), bytes: checkpoint_bytes() }
    }
}

fn one() -> i32 {
    1
}

fn five() -> i32 {
    5
}

fn checkpoint_bytes() -> Quantity {
    "64Mi".into()
}
