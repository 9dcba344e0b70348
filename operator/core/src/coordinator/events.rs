//! What comes in by the coordinator's door, and what goes out.

use hyperflow_api::{
    ShardJobSpec, ShardJobStatus,
    ids::JobUid,
    message::{FromOperator, Hello, Owner, Report},
};

/// A stream of one worker, as the shell numbers them. Never used twice by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A write of status, numbered. [`Event::StatusStored`] and [`Event::StatusRefused`] speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// What the chart sets for all jobs: a tenant does not tune the fail-over of a shared operator.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A lease that is not renewed for so long is lost.
    pub lease_millis: u64,
    /// A worker that hears no operator for so long stops (P17).
    pub orphan_seconds: u32,
    /// The copies of a node that is silent for so long are made again elsewhere.
    pub blocks_lost_millis: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lease_millis: 10_000, orphan_seconds: 600, blocks_lost_millis: 60_000 }
    }
}

/// The resource as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `metadata.uid`.
    pub uid: JobUid,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec`.
    pub spec: ShardJobSpec,
    /// `status`.
    pub status: ShardJobStatus,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Its namespace is being deleted too: nothing is waited for (P24).
    pub abandoned: bool,
}

/// A pod of the job's pool: owned by the job's UID, whatever its labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The node it is bound to.
    pub node: Option<String>,
    /// The zone of that node, if the pod says so.
    pub zone: Option<String>,
    /// Digest of what it was made of, if it says so: see [`super::workers_digest`].
    pub made_of: Option<String>,
    /// It is being deleted, or has ended for good.
    pub leaving: bool,
    /// Why it does not run, if the kubelet or the scheduler says so: `(reason, message)`.
    pub trouble: Option<(String, String)>,
    /// Why it ends: the condition `DisruptionTarget`, or of a pod that has failed the status itself: `(reason, message)`.
    pub disruption: Option<(String, String)>,
    /// How often its container has ended.
    pub ends: u32,
    /// How it ended last: `(reason, message)`, `OOMKilled` for one.
    pub ended: Option<(String, String)>,
}

/// A node of the cluster, as far as scheduling looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// The condition `Ready` is True.
    pub ready: bool,
    /// `spec.unschedulable` is set.
    pub cordoned: bool,
    /// A condition such as `MemoryPressure` that is True.
    pub pressure: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The resource changed.
    JobSeen(Box<Seen>),
    /// All pods of the pool, as the cache has them now.
    PodsSeen(Vec<Pod>),
    /// All nodes of the cluster, as the cache has them now. Never comes where nodes may not be read.
    NodesSeen(Vec<Node>),
    /// The API server refused to create a pod: `(reason, message)`.
    PodRefused(String, String),
    /// A worker opened a stream; its token was reviewed and speaks for the pod that it says hello for.
    SessionOpened {
        /// The stream.
        session: SessionId,
        /// The first message.
        hello: Hello,
    },
    /// A stream is gone.
    SessionClosed(SessionId),
    /// A worker said something.
    Reported {
        /// On which stream.
        session: SessionId,
        /// What.
        report: Report,
    },
    /// This status is in the API server.
    StatusStored(Revision),
    /// This status is not in the API server, and nobody else's is: try again.
    StatusRefused(Revision),
    /// The job that a claim speaks of was looked for: whether it still exists, if that is known.
    OwnerSeen {
        /// Which.
        uid: JobUid,
        /// It exists.
        lives: Option<bool>,
    },
    /// Nothing more happened just now: send and store what has gathered. Also the clock's tick.
    Flush,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Say this on a stream.
    Send {
        /// Which.
        session: SessionId,
        /// What.
        message: FromOperator,
    },
    /// End a stream. For the core it has ended: nobody need say so.
    Close {
        /// Which.
        session: SessionId,
        /// Why: the worker logs it.
        reason: &'static str,
    },
    /// Store this status. One is stored at a time; the answer is `StatusStored` or `StatusRefused`.
    StoreStatus {
        /// Names the write.
        revision: Revision,
        /// All of it.
        status: Box<ShardJobStatus>,
    },
    /// Tell people: an Event of the resource.
    Announce(Announcement),
    /// Look for this job in the API server; the answer is `OwnerSeen`.
    FindOwner(Owner),
    /// [`Coordinator::wanted_pods`] may have changed: look at the pool again.
    LookAtPool,
    /// Nothing is waited for any more before the object may go: remove our finalizer, if it is there (P24).
    Release,
}

/// Something people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// A warning, or news.
    pub warning: bool,
    /// A word for programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What the pool should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedPods {
    /// The run that those to create are for: see [`super::made_of`].
    pub run: u32,
    /// Names of pods to create; those that exist already are left alone.
    pub create: Vec<String>,
    /// Pods to delete: `(name, uid)`.
    pub delete: Vec<(String, String)>,
}
