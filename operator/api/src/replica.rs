//! What workers and the operator say to each other about blocks: pieces of the input that are kept on nodes' disks.
//!
//! A block is a piece of a shard's planned input, a group is the blocks of consecutive shards: see `hyperflow_core::blocks`.
//! A worker tells which groups its store holds, the operator orders what is to be loaded, copied or dropped, and where others
//! may be read.

use crate::ids::JobUid;

/// What a worker's store is and how other workers reach it. Said once, in the hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The store's own UUID: it stays when the pod does not, and two workers on one volume have the same (P30).
    pub store: String,
    /// `ip:port` where other workers of the job may read blocks.
    pub address: String,
    /// The worker's public key as SubjectPublicKeyInfo, DER: the operator signs a certificate for it.
    pub public_key: Vec<u8>,
    /// The volume outlives the pod.
    pub persistent: bool,
    /// Most bytes of all replicas.
    pub capacity: u64,
}

/// News of a store: part of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holdings {
    /// Digest of the plan that replicas were compared with.
    pub plan: String,
    /// `groups` is all there is; otherwise what changed since the last.
    pub full: bool,
    /// Bytes that more replicas may take.
    pub free: u64,
    /// Groups of which anything is there, or was.
    pub groups: Vec<GroupHeld>,
    /// Loads that have ended.
    pub ended: Vec<LoadEnd>,
}

/// What a store has of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupHeld {
    /// Which.
    pub group: u32,
    /// Blocks that the plan has in it.
    pub blocks: u32,
    /// Replicas of the plan's version whose length is right and that nobody found damaged.
    pub good: u32,
    /// Replicas of another version.
    pub stale: u32,
    /// Replicas that are damaged.
    pub corrupt: u32,
    /// Exclusive or of the digests of the good ones, each of shard, part, version, length and CRC-32C.
    pub digest: u64,
    /// Bytes of the good ones.
    pub bytes: u64,
}

impl GroupHeld {
    /// Every block of the group is there and good. A group without blocks is nothing that could be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.blocks > 0 && self.good >= self.blocks
    }
}

/// A load is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadEnd {
    /// Of this group.
    pub group: u32,
    /// As ordered.
    pub order: u64,
    /// Bytes that came from other workers.
    pub from_peers: u64,
    /// Bytes that were read from the source.
    pub from_source: u64,
    /// Why it is not complete.
    pub trouble: Option<Trouble>,
}

/// Why a load did not get all of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A word: [`Self::FULL`] and its like.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Trouble {
    /// No room for more replicas.
    pub const FULL: &'static str = "BlockStoreFull";
    /// None of the peers had it, and the source was not to be asked.
    pub const NO_COPY: &'static str = "NoCopy";
    /// The source is not what was planned.
    pub const CHANGED: &'static str = "InputChanged";
    /// The source cannot be read.
    pub const UNREACHABLE: &'static str = "SourceUnreachable";
    /// Writing or reading the store failed.
    pub const DISK: &'static str = "BlockStoreFailed";
}

/// What a worker is to do with its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockOrder {
    /// Get every block of the group that is missing, stale or damaged. Ends with a [`LoadEnd`]. Ordered again with another
    /// number, the first is forgotten and what it has got so far stays.
    Load {
        /// Which group.
        group: u32,
        /// Names the order.
        order: u64,
        /// Who has it, best first.
        from: Vec<Peer>,
        /// The source may be read if none of them can give a block.
        source: bool,
        /// The right to read the group from `from`: see [`grant_content`]. Filled in by the shell.
        grant: String,
    },
    /// Remove replicas of the group.
    Drop {
        /// Which group.
        group: u32,
        /// Which replicas.
        what: Dropped,
    },
    /// Where the group may be read for a task, from now on; replaces what was said before.
    Access {
        /// Which group.
        group: u32,
        /// Who has it, best first.
        from: Vec<Peer>,
        /// As for a load.
        grant: String,
    },
}

impl BlockOrder {
    /// The group it speaks of.
    #[must_use]
    pub fn group(&self) -> u32 {
        match self {
            Self::Load { group, .. } | Self::Drop { group, .. } | Self::Access { group, .. } => *group,
        }
    }
}

/// Which replicas go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// All of the group: enough others have it (P29).
    Surplus,
    /// Those of another version and damaged ones.
    Outdated,
}

/// A worker that serves blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its pod's UID: the name in its certificate, see [`peer_name`].
    pub pod: String,
    /// `ip:port`.
    pub address: String,
}

/// The DNS name in the certificate of a worker: by it, workers of one job know each other.
#[must_use]
pub fn peer_name(pod: &str, job: &JobUid) -> String {
    format!("{pod}.{}.workers.hyperflow", job.0)
}

/// What the operator signs when it lets the worker of `pod` read a group from the others of its job, until `end` in Unix
/// seconds. With the lengths of what varies, so that no two grants are the same bytes.
#[must_use]
pub fn grant_content(job: &JobUid, pod: &str, group: u32, end: u64) -> Vec<u8> {
    let mut content = b"hyperflow block grant 2026 v1".to_vec();
    for name in [job.0.as_str(), pod] {
        content.extend((name.len() as u64).to_be_bytes());
        content.extend(name.as_bytes());
    }
    content.extend(group.to_be_bytes());
    content.extend(end.to_be_bytes());
    content
}
