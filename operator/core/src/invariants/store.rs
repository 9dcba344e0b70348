//! What holds between the operator's books and the output store.

use std::collections::BTreeSet;

use hyperflow_api::{ids::ShardIndex, message::Checkpoint};

use super::{Broken, hold};
use crate::ranges::RangeSet;

/// I1. One commit a shard: of all records, each `(shard, found)`, at most one says of a shard that its own attempt had
/// committed it; all others found it so (P5).
///
/// # Errors
/// When two say so.
pub fn one_winner_each(records: impl IntoIterator<Item = (ShardIndex, bool)>) -> Result<(), Broken> {
    let mut winners = BTreeSet::new();
    let second = records.into_iter().find(|(index, found)| !found && !winners.insert(*index));
    hold("I1 one commit a shard", second.is_none(), || format!("two attempts say that they published {second:?}"))
}

/// I2. No commit is lost: what a worker ever reported as published is in the store for good (P6).
///
/// # Errors
/// When something is not.
pub fn commits_stay(reported: &RangeSet, durable: impl Fn(ShardIndex) -> bool) -> Result<(), Broken> {
    let lost = reported.iter().find(|index| !durable(*index));
    hold("I2 no commit is lost", lost.is_none(), || {
        format!("shard {lost:?} was reported as published, and the store does not have it for good")
    })
}

/// I3. Status never leads the store: what it calls done is published (P5, P7).
///
/// # Errors
/// When something is not.
pub fn status_never_leads(done: &RangeSet, published: impl Fn(ShardIndex) -> bool) -> Result<(), Broken> {
    let leads = done.iter().find(|index| !published(*index));
    hold("I3 status never leads", leads.is_none(), || format!("status calls shard {leads:?} done, the store does not"))
}

/// I6. An attempt goes on only from a checkpoint that is durable, with everything that it names (P20).
///
/// # Errors
/// When it is not there.
pub fn resumed_is_durable(index: ShardIndex, resume: Checkpoint, durable: bool) -> Result<(), Broken> {
    hold("I6 resumed is durable", durable, || format!("shard {index} is to go on from {resume:?}, which is not there"))
}

/// I8. Nothing that is needed is deleted: staging and checkpoints of a shard go only when a stored status has it as done
/// (P12, P21).
///
/// # Errors
/// When it has not.
pub fn cleaned_is_stored(index: ShardIndex, stored: &RangeSet) -> Result<(), Broken> {
    hold("I8 nothing needed is deleted", stored.contains(index), || {
        format!("temporary files of shard {index} were deleted before a stored status had it as done")
    })
}

/// I26. Every result is recorded: what status calls done has a durable record (P9).
///
/// # Errors
/// When something has none.
pub fn results_are_recorded(done: &RangeSet, recorded: impl Fn(ShardIndex) -> bool) -> Result<(), Broken> {
    let unrecorded = done.iter().find(|index| !recorded(*index));
    hold("I26 results are recorded", unrecorded.is_none(), || {
        format!("shard {unrecorded:?} is done, and nobody recorded it")
    })
}
