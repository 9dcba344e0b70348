//! What holds when a job has ended.

use hyperflow_api::{ShardJobStatus, ids::ShardIndex};

use super::{Broken, hold};
use crate::{ranges::RangeSet, reasons::SUCCEEDED_WITH_FAILURES, retry::MAX_KILLS};

/// I9. Nothing temporary is left in the output when a worker has swept it (P24).
///
/// # Errors
/// With what is left.
pub fn nothing_temporary_is_left<T: std::fmt::Debug>(left: &[T]) -> Result<(), Broken> {
    hold("I9 nothing temporary is left", left.is_empty(), || format!("left behind: {left:?}"))
}

/// I10. The results are what they should be, computed without us: each shard's, byte for byte or by its checksum.
///
/// # Errors
/// When one differs or is missing.
pub fn outputs_are_right<T: PartialEq>(
    results: impl IntoIterator<Item = (ShardIndex, Option<T>, T)>,
) -> Result<(), Broken> {
    let wrong = results.into_iter().find(|(_, found, wanted)| found.as_ref() != Some(wanted));
    let state = |(index, found, _): (ShardIndex, Option<T>, T)| {
        format!("the result of shard {index} is {}", if found.is_some() { "wrong" } else { "missing" })
    };
    match wrong {
        Some(wrong) => hold("I10 outputs are right", false, || state(wrong)),
        None => Ok(()),
    }
}

/// I13. The end is explained: there is one, and the counts are those of the indexes; Complete means that all shards are
/// done, or says that some of them failed; Failed has a reason and a message.
///
/// # Errors
/// When it is not.
pub fn the_end_is_explained(status: &ShardJobStatus) -> Result<(), Broken> {
    let promise = "I13 the end is explained";
    let find = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind && it.status == "True");
    let (complete, failed) = (find("Complete"), find("Failed"));
    hold(promise, complete.is_some() != failed.is_some(), || format!("both or neither of two ends: {status:?}"))?;
    let shards = status.shards.clone().unwrap_or_default();
    let (done, given_up): (Option<RangeSet>, Option<RangeSet>) =
        (shards.completed_indexes.parse().ok(), shards.failed_indexes.parse().ok());
    let count = |set: &Option<RangeSet>| set.as_ref().and_then(|set| i32::try_from(set.len()).ok());
    let counted = count(&done) == Some(shards.succeeded) && count(&given_up) == Some(shards.failed);
    hold(promise, counted, || format!("counts and indexes differ: {shards:?}"))?;
    let tolerated = complete.filter(|it| it.reason == SUCCEEDED_WITH_FAILURES && shards.failed > 0);
    let settled = shards.succeeded + tolerated.map_or(0, |_| shards.failed);
    hold(promise, complete.is_none() || settled == shards.total && status.plan.is_some(), || {
        format!("Complete, and {} of {} shards are done, {} failed", shards.succeeded, shards.total, shards.failed)
    })?;
    let explained = failed.is_none_or(|failed| !failed.reason.is_empty() && !failed.message.is_empty());
    hold(promise, explained, || "Failed without a reason".into())
}

/// What the world did to a shard, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardship {
    /// Attempts that ended in their own failure, or for want of memory.
    pub failures: u32,
    /// Times that it ran in a worker which was lost or seemed to be.
    pub deaths: u32,
}

/// L3. Nothing is given up for nothing: a shard that is had its failures (P16), and infrastructure alone does not use up
/// its attempts.
///
/// # Errors
/// When it had not.
pub fn nobody_is_given_up_for_nothing(index: ShardIndex, hardship: Hardship, max_attempts: u32) -> Result<(), Broken> {
    let Hardship { failures, deaths } = hardship;
    let deserved = failures >= max_attempts || deaths >= MAX_KILLS;
    hold("L3 nobody is given up for nothing", deserved, || {
        format!("shard {index} was given up after {failures} failures and {deaths} lost workers")
    })
}
