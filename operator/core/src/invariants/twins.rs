//! What holds of two attempts of one shard (P19), and of the last command.

use hyperflow_api::{ShardJobStatus, ids::ShardIndex};

use super::{Broken, hold};
use crate::{history::History, shards::Shards};

/// I28. So many workers at most were given a shard by one operator, and have heard of no end of that: one, or two when
/// nothing else is left to give.
///
/// # Errors
/// When there are more, or the second came too soon.
pub fn two_at_most(index: ShardIndex, workers: usize, may_be_two: bool, left: u32) -> Result<(), Broken> {
    let promise = "I28 two attempts at most";
    hold(promise, workers <= if may_be_two { 2 } else { 1 }, || format!("shard {index} is with {workers} workers"))?;
    hold(promise, workers == 1 || left == 0, || {
        format!("shard {index} was given twice while {left} others waited for a worker")
    })
}

/// I29. Who had one of two attempts and says how it ended, ends nothing else: the shard is not charged and goes on.
///
/// # Errors
/// When it is, or does not.
pub fn one_of_two_is_spared(index: ShardIndex, before: History, after: &Shards) -> Result<(), Broken> {
    let charged = |history: History| (history.failures, history.losses, history.kills);
    let spared = after.done().contains(index)
        || after.leased().get(&index).is_some_and(|leased| charged(leased.history) == charged(before));
    hold("I29 one of two is spared", spared, || {
        format!("one of two attempts of shard {index} ended, {before:?} became {:?}", after.history(index))
    })
}

/// I30. Who works on what is settled is told at once.
///
/// # Errors
/// When it was not.
pub fn who_lost_is_told(settled: Option<ShardIndex>) -> Result<(), Broken> {
    hold("I30 who lost is told", settled.is_none(), || {
        format!("shard {settled:?} is settled, and a worker that has it was told nothing")
    })
}

/// I31. The last command runs only when every shard is published or given up, and not after a status said that it has run.
///
/// # Errors
/// When it does.
pub fn finishes_last(unsettled: Option<ShardIndex>, stored: Option<&ShardJobStatus>) -> Result<(), Broken> {
    let promise = "I31 the last command comes last";
    hold(promise, unsettled.is_none(), || {
        format!("it runs, and shard {unsettled:?} is neither published nor given up")
    })?;
    hold(promise, !says_finalized(stored), || "a stored status says that it has run, and it runs again".into())
}

/// I32. What the last command reads is swept only when a stored status says that it has run, or that the job fails.
///
/// # Errors
/// When it is swept sooner.
pub fn swept_after_it_finished(stored: Option<&ShardJobStatus>) -> Result<(), Broken> {
    let fails = stored.and_then(|status| status.recovery.as_ref()).is_some_and(|notes| !notes.verdict.is_empty());
    hold("I32 swept after the last command", fails || says_finalized(stored), || {
        format!("no stored status says that it has run: {:?}", stored.and_then(|status| status.recovery.as_ref()))
    })
}

fn says_finalized(stored: Option<&ShardJobStatus>) -> bool {
    stored.and_then(|status| status.recovery.as_ref()).is_some_and(|notes| notes.finalized)
}
