//! What a worker and the operator say to each other, in types that cannot be wrong. [`crate::wire`] carries them.

use crate::{
    ids::{Epoch, JobUid, ShardIndex, Takeover, WorkerId},
    replica::{BlockOrder, Holdings, Host},
};

/// Version of these messages. A worker of another version is refused by name.
pub const PROTOCOL: u32 = 1;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Prove that the output store is create-only, claim the output, list the input and write the plan (P8).
    Plan,
    /// Run the task on one shard and publish its result.
    Shard(ShardIndex),
    /// After all shards: run the last command with the report as its input.
    Finally,
    /// After that: remove staging and checkpoints that nobody needs any more.
    Sweep,
}

/// Worker to operator.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// First message of a stream, never again.
    Hello(Hello),
    /// Everything after.
    Report(Report),
}

/// Who calls, and what it still works on.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// [`PROTOCOL`] of the worker.
    pub protocol: u32,
    /// The job its pod belongs to.
    pub job: JobUid,
    /// This process.
    pub worker: WorkerId,
    /// Shards it works on at a time.
    pub slots: u32,
    /// Leases it goes on with; those of an earlier nonce of the pod are lost (P2).
    pub held: Vec<Held>,
    /// The highest term that ever welcomed it: an operator with a lower one has been replaced, or the API server was
    /// restored from an older state (P1, P22).
    pub heard: u64,
    /// Where it keeps blocks, if the job has any.
    pub host: Option<Host>,
}

/// A lease that a worker has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// What it is for.
    pub target: Target,
    /// As granted.
    pub epoch: Epoch,
    /// How far the attempt is: bytes of the shard's input read, or 0.
    pub position: u64,
}

/// News from a worker. Batched: one message may carry all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// This is a heartbeat: the leases in `held`, and no others, are renewed (P2).
    pub beat: bool,
    /// All leases of the worker, in a heartbeat.
    pub held: Vec<Held>,
    /// How many leases it would hold at a time now: its slots, and some to begin at once when one is done.
    pub capacity: u32,
    /// It has been told to stop and takes no more.
    pub leaving: bool,
    /// Number of the first of `facts`; the others follow (P12). Counted per session, from 1.
    pub first_number: u64,
    /// Must be acknowledged.
    pub facts: Vec<Fact>,
    /// What its block store holds, if that is news. Said again, all of it, in each session: it needs no acknowledgement.
    pub holdings: Option<Holdings>,
}

/// Something that happened and must not be forgotten: repeated in each new session until acknowledged (P12).
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// To what.
    pub target: Target,
    /// Under which lease.
    pub epoch: Epoch,
    /// What.
    pub news: News,
}

/// What can happen to a leased target.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Progress is durable.
    Checkpointed(Checkpoint),
    /// The result is visible, and durable (P6). True of the store, from whichever epoch it is said (P7).
    Published(Published),
    /// The plan is stored.
    Planned(Planned),
    /// The names of the results belong to another job, and its results may be used again (P31): is it gone?
    Claimed(Owner),
    /// The last command has succeeded, and its result, if it has one, is visible and durable.
    Finalized,
    /// Nothing temporary is left, and the report, if there is one, is stored.
    Swept(Option<StoredReport>),
    /// The attempt ended in a failure.
    Failed(Failure),
    /// Handed back unfinished, because the worker leaves; the last checkpoint stands.
    Released,
}

/// A durable checkpoint: its manifest is found in the store by shard, number and digest (P20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Rises by one with each checkpoint of an attempt, from the one that it goes on from. Two attempts side by side may use
    /// one number: the digest tells them apart.
    pub number: u64,
    /// Bytes of the shard's input that need not be read again.
    pub position: u64,
    /// First 64 bits of the manifest's BLAKE3.
    pub digest: u64,
}

/// A result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Size of the output.
    pub bytes: u64,
    /// CRC-32C of the output.
    pub crc32c: u32,
    /// Another attempt had published before; these are its figures (P5).
    pub found: bool,
}

/// A stored plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Number of shards.
    pub shards: u32,
    /// Number of input files.
    pub files: u64,
    /// Bytes of all input.
    pub bytes: u64,
    /// `blake3:…` of the stored plan.
    pub digest: String,
    /// Where it is stored.
    pub url: String,
}

/// The job that a claim on the names of results speaks of (P8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.uid`.
    pub uid: JobUid,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// A stored report: what was published, shard by shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    /// Where it is stored.
    pub url: String,
    /// `blake3:…` of it.
    pub digest: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Decides about a retry.
    pub class: FailureClass,
    /// A word for programs: `InputChanged`.
    pub reason: String,
    /// What happened to what, and what to do: for people.
    pub message: String,
    /// No attempt of any shard can do better: the job fails with `reason`.
    pub ends_job: bool,
    /// The checkpoint it resumed from cannot be used: the next attempt starts from zero.
    pub checkpoint_unusable: bool,
    /// The exit code of the user's program, if it ended with one.
    pub exit_code: Option<i32>,
}

/// What kind of failure; infrastructure does not use up attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureClass {
    /// The task itself.
    Application,
    /// The input is not what the plan says, or cannot be read.
    BadInput,
    /// A store refused or failed to write.
    Store,
    /// The worker died, was deleted or fell silent.
    WorkerLost,
    /// The kernel killed a process of the worker that wanted more memory than its limit.
    OutOfMemory,
    /// A store or the task did not answer or end in its time.
    Timeout,
    /// The node is gone, or was not heard for too long.
    NodeLost,
    /// The pod was evicted: a drain, or too little memory or disk on its node.
    Evicted,
    /// A pod of higher priority took its place.
    Preempted,
    /// The image of the worker could not be had.
    ImagePull,
}

impl FailureClass {
    /// As it stands in status, events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::BadInput => "BadInput",
            Self::Store => "Store",
            Self::WorkerLost => "WorkerLost",
            Self::OutOfMemory => "OutOfMemory",
            Self::Timeout => "Timeout",
            Self::NodeLost => "NodeLost",
            Self::Evicted => "Evicted",
            Self::Preempted => "Preempted",
            Self::ImagePull => "ImagePull",
        }
    }
}

/// Operator to worker.
#[derive(Clone, Debug, PartialEq)]
pub enum FromOperator {
    /// First answer of a stream.
    Welcome(Welcome),
    /// Everything after.
    Orders(Orders),
}

/// The worker is known and may work.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The operator process that speaks. A worker refuses one with a lower term than it has seen.
    pub takeover: Takeover,
    /// The job's spec as JSON.
    pub job: String,
    /// A lease that is not renewed for so long is lost. Heartbeats come three times as often.
    pub lease_millis: u32,
    /// A worker that hears no operator for so long stops (P17).
    pub orphan_seconds: u32,
}

/// What to do. Batched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// Work to start.
    pub grants: Vec<Grant>,
    /// Leases that are fenced: stop, and publish nothing more under them.
    pub revoked: Vec<Revoked>,
    /// All facts of this session up to this number are in the stored status (P12).
    pub acked_through: Option<u64>,
    /// The plan, once it is known. Comes before the first grant of a shard.
    pub plan: Option<PlanRef>,
    /// Nothing is left to do: exit.
    pub leave: bool,
    /// What to do with blocks.
    pub blocks: Vec<BlockOrder>,
}

/// Which plan is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRef {
    /// Number of shards.
    pub shards: u32,
    /// `blake3:…`
    pub digest: String,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// What for.
    pub target: Target,
    /// The right to speak for it (P1).
    pub epoch: Epoch,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The worker runs it already under this epoch: go on under the new one (P18).
    pub replaces: Option<Epoch>,
    /// It may have been published unseen: look before working (P18). For a sweep: say what was published, in a report.
    pub probe: bool,
    /// Where to go on from.
    pub resume: Option<Checkpoint>,
    /// For a plan: the claim of the job whose UID has this digest may be taken over, because that job is gone (P31).
    pub heir_of: Option<u64>,
}

/// A lease that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// What it was for.
    pub target: Target,
    /// As granted.
    pub epoch: Epoch,
}
