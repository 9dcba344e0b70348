//! Blocks: pieces of the planned input, copies of which are kept on nodes' disks (P28 to P30).
//!
//! | question | file |
//! | --- | --- |
//! | what is a block, and which group is it in | [`geometry`] |
//! | a store: what it has said that it has, and whether it is heard | `store.rs` |
//! | which store has which group, and which may be read | `map.rs` |
//! | what is done about a copy | `rules.rs` |
//! | which nodes should have a group | `placement.rs` |
//! | which nodes are near each other, and how copies are kept apart | `zones.rs` |
//! | which copies are made next, and from where | `repair.rs` |
//! | when copies are not made again, for it is the network | `breaker.rs` |
//! | what the next operator process reads | `notes.rs` |
//! | all of that together | `keeper.rs` |
//! | which copies go | `keeper/surplus.rs` |
//! | where a group is read | `keeper/reading.rs` |
//! | how many copies there are, and what people are told of them | `keeper/counts.rs`, `keeper/news.rs` |
//!
//! A block is a piece of one shard's planned input, at most [`BLOCK_BYTES`] long. A group is the blocks of consecutive
//! shards, [`GROUPS`] of them in a job: placing single blocks would make the status megabytes, groups keep it at some
//! kilobytes. Which group a shard is in is arithmetic, so that the operator need not read the plan.

mod breaker;
mod geometry;
mod keeper;
mod map;
mod notes;
mod placement;
mod repair;
mod rules;
mod store;
mod zones;

use hyperflow_api::{ShardJobSpec, exec::InputMode, source::OnChange};

pub use self::geometry::{BLOCK_BYTES, Block, GROUPS, blocks_of, group_of, groups, shards_of};
pub use self::notes::BLOCKS_BYTES;
pub(crate) use self::{
    keeper::{Around, Keeper, first_fresh},
    notes::Notes,
    repair::Loads,
    store::{Presence, Store, StoreId},
    zones::Zones,
};
use crate::job::{Refusal, amount, refuse};

/// How many copies of the input are kept, and when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPolicy {
    /// On how many nodes each group is kept.
    pub replicas: u32,
    /// Most bytes on a node.
    pub size_limit: Option<u64>,
    /// A source that has changed does not matter as long as there are copies of what was planned.
    pub use_when_changed: bool,
}

/// Figures of a job's blocks, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whole copies of groups that may be read.
    pub ready: u64,
    /// Copies of groups with replicas of another version.
    pub stale: u64,
    /// Copies of groups with damaged replicas.
    pub corrupt: u64,
    /// Groups with fewer whole copies than wanted.
    pub under_replicated: u64,
    /// Copies to be made.
    pub queued: u64,
    /// Bytes that workers got from the source, as far as this operator process was told.
    pub bytes_from_source: u64,
    /// Bytes that workers got from one another.
    pub bytes_from_peers: u64,
}

impl BlockPolicy {
    /// Checks what a spec says of blocks.
    ///
    /// # Errors
    /// With the first field that is not sound.
    pub(crate) fn check(spec: &ShardJobSpec) -> Result<Option<Self>, Refusal> {
        let files = spec.source.files.as_ref();
        let on_change = files.map(|files| files.on_change).unwrap_or_default();
        let use_when_changed = match on_change {
            OnChange::Fail => false,
            OnChange::UseBlocks if spec.blocks.is_some() => true,
            OnChange::UseBlocks => return refuse("spec.source.files.onChange", "'UseBlocks' needs `spec.blocks`"),
            OnChange::Unknown => return refuse("spec.source.files.onChange", "must be 'Fail' or 'UseBlocks'"),
        };
        let Some(blocks) = &spec.blocks else { return Ok(None) };
        if files.is_none() {
            return refuse("spec.blocks", "blocks are pieces of files: they need `spec.source.files`");
        }
        let Some(replicas @ 1..=5) = u32::try_from(blocks.replicas).ok() else {
            return refuse("spec.blocks.replicas", "must be 1 to 5");
        };
        let named = |name: &String| spec.workers.volumes.iter().any(|volume| volume.name == *name);
        if blocks.volume_name.as_ref().is_some_and(|name| !named(name)) {
            return refuse("spec.blocks.volumeName", "must be the name of an entry in `spec.workers.volumes`");
        }
        if spec.task.exec.as_ref().is_some_and(|exec| exec.input == InputMode::Range) {
            let message = "'Range' lets the program read the mounted file itself: use 'File' or 'Stdin' with `blocks`";
            return refuse("spec.task.exec.input", message);
        }
        let size_limit = amount("spec.blocks.sizeLimit", blocks.size_limit.as_ref())?;
        Ok(Some(Self { replicas, size_limit, use_when_changed }))
    }
}
