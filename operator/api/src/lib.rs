//! The words that operator, workers and users share.
//!
//! | word | where |
//! | --- | --- |
//! | `ShardJob`, what people write | [`shardjob`]: what is processed in [`source`], what is done in [`task`] and [`exec`], by whom in [`workers`] |
//! | what a failure does, what runs twice, what runs again | [`failure`], [`speculation`], [`rerun`] |
//! | what they read back | [`status`] |
//! | the schema as a file | [`crd`] |
//! | who is who: job, worker, shard, epoch | [`ids`] |
//! | amounts of bytes, `64Mi` | [`quantity`] |
//! | copies of the input on nodes' disks | [`blocks`] |
//! | what operator and workers say to each other | [`message`], of blocks [`replica`], carried by [`wire`] |
//!
//! Nothing here decides, waits or talks to Kubernetes: decisions are in `hyperflow-core`.

pub mod blocks;
pub mod crd;
pub mod exec;
pub mod failure;
pub mod ids;
pub mod message;
pub mod quantity;
pub mod replica;
pub mod rerun;
pub mod shardjob;
pub mod source;
pub mod speculation;
pub mod status;
pub mod task;
pub mod wire;
pub mod workers;

pub use shardjob::{ShardJob, ShardJobSpec};
pub use status::ShardJobStatus;

/// The UID of the ShardJob a pod works for: what its pods are watched by.
pub const JOB_UID_LABEL: &str = "hyperflow.dev/shardjob-uid";
/// For people and selectors; never used to decide anything.
pub const JOB_NAME_LABEL: &str = "hyperflow.dev/shardjob-name";
/// Digest of the `spec.workers` and the program that a pod was made of: a pod that cannot run is replaced when that has
/// changed.
pub const WORKERS_LABEL: &str = "hyperflow.dev/workers-digest";
/// What `spec.managedBy` calls this operator.
pub const CONTROLLER: &str = "hyperflow.dev/shardjob-controller";
