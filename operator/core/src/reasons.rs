//! Every "not now" has a name: why nothing more is leased at this moment. The same value is the reason of a condition,
//! the field of a log line and what a test asserts.

/// The output store has no room: what a worker calls it, and what status does.
pub const OUTPUT_FULL: &str = "OutputFull";

/// A file of the input is not there: what a worker calls it, and what status does.
pub const NO_INPUT: &str = "NoInput";

/// The job is complete though some shards failed: the reason of its condition.
pub const SUCCEEDED_WITH_FAILURES: &str = "SucceededWithFailures";

/// A shard that was given up for the workers that were lost with it: the reason of its sample.
pub const POISON: &str = "Poison";

/// Why nothing more is leased just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// The raised term is not in the API server yet (P1).
    TermNotStored,
    /// The object is being deleted.
    Deleting,
    /// The job is suspended (P26).
    Suspended,
    /// The job is to have no workers.
    NoneWanted,
    /// No worker is in session.
    NoWorker,
    /// What is left failed on this worker's node, and others may take it.
    LeftToOthers,
    /// Every worker holds as many leases as it would.
    SlotsFull,
    /// Every worker is on a node that is cordoned, not ready, under pressure or failing.
    NodesUnfit,
    /// What is left will be done sooner by faster workers.
    LeftToFaster,
    /// Shards that may have killed a worker run one to a worker (P16).
    SuspectsApart,
    /// A worker lists the input.
    Planning,
    /// The names of the results belong to another job: is it gone (P31)?
    OwnerUnknown,
    /// Planning failed, and waits for its next attempt.
    PlanBackingOff,
    /// Every shard that is left is leased.
    AllLeased,
    /// Every shard that is left waits for its next attempt.
    BackingOff,
    /// There is no room for results.
    OutputFull,
    /// After a take-over: what may run elsewhere waits to be claimed (P18).
    ClaimsStand,
    /// There are as many unfinished holes as status can describe (P14, P15).
    WindowFull,
    /// Status must reserve more shards first.
    ReservationPending,
    /// All shards are settled; the last command runs, or is tried again soon.
    Finalizing,
    /// All shards are settled; a worker removes temporary files.
    Sweeping,
    /// The job has ended.
    Finished,
}

impl NotNow {
    /// A word for programs: the reason of `Reconciling` while nothing runs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TermNotStored => "TakingOver",
            Self::Deleting => "Deleting",
            Self::Suspended => "Suspended",
            Self::NoneWanted => "NoParallelism",
            Self::NoWorker => "WaitingForWorker",
            Self::SlotsFull | Self::AllLeased | Self::LeftToFaster | Self::LeftToOthers | Self::SuspectsApart => {
                "Running"
            }
            Self::NodesUnfit => "WaitingForNode",
            Self::Planning => "Planning",
            Self::OwnerUnknown => "FindingOwner",
            Self::PlanBackingOff | Self::BackingOff => "BackingOff",
            Self::OutputFull => OUTPUT_FULL,
            Self::ClaimsStand => "WaitingForClaims",
            Self::WindowFull => "WindowFull",
            Self::ReservationPending => "Reserving",
            Self::Finalizing => "Finalizing",
            Self::Sweeping => "Sweeping",
            Self::Finished => "Finished",
        }
    }

    /// For people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::TermNotStored => "the operator takes the job over",
            Self::Deleting => "the job is being deleted",
            Self::Suspended => "the job is suspended: set `spec.suspend` to false to go on",
            Self::NoneWanted => "`spec.parallelism` is 0: raise it to go on",
            Self::NoWorker => "no worker is in session yet",
            Self::SlotsFull | Self::AllLeased | Self::LeftToFaster => "shards are being processed",
            Self::LeftToOthers => "shards that failed on a node wait for a worker on another",
            Self::NodesUnfit => "every worker is on a node that is cordoned, not ready, under pressure or failing",
            Self::SuspectsApart => "shards that may have killed a worker run one to a worker",
            Self::Planning => "a worker lists the input",
            Self::OwnerUnknown => "the output belongs to another ShardJob, which is looked for",
            Self::PlanBackingOff => "listing the input failed and is tried again soon",
            Self::BackingOff => "shards wait for their next attempt after failures",
            Self::OutputFull => {
                "the volume of `spec.output.url` is full: make room on it, or enlarge it. Shards wait for that, use up no \
                 attempt, and are tried again by themselves"
            }
            Self::ClaimsStand => "workers of the operator before this one may still claim their shards",
            Self::WindowFull => "too many shards are unfinished behind the newest: they go first",
            Self::ReservationPending => "the status is about to reserve more shards",
            Self::Finalizing => "all shards are settled; the last command runs",
            Self::Sweeping => "all shards are settled; temporary files are removed",
            Self::Finished => "nothing is left to do",
        }
    }
}
