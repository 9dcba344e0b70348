//! What holds between one moment and a later one.

use hyperflow_api::{
    ShardJobStatus,
    ids::{Epoch, ShardIndex, Takeover},
    message::Checkpoint,
    status::Recovery,
};

use super::{Broken, hold};
use crate::{ledger::takeover_of, ranges::RangeSet, shards::Shards, status::run_of};

/// I5. What was done stays done, in the books of one coordinator (P25).
///
/// # Errors
/// When something is not done any more.
pub fn done_stays_done(before: &Shards, after: &Shards) -> Result<(), Broken> {
    let undone = before.done().iter().find(|index| !after.done().contains(*index));
    hold("I5 status is monotone", undone.is_none(), || format!("shard {undone:?} was done and is not"))
}

/// I5. One stored status follows another: what is done stays done, what is given up is only ever done after all, the term
/// rises or the take-over is the same (P1, P13), the plan is the plan (P4), and an end is final (P25).
///
/// # Errors
/// When something went back.
pub fn status_is_monotone(before: &ShardJobStatus, after: &ShardJobStatus) -> Result<(), Broken> {
    let promise = "I5 status is monotone";
    let (run, next) = (run_of(before), run_of(after));
    let planned = before.plan.is_some() && after.plan.is_some();
    hold(promise, run <= next || !planned, || format!("run {run} was followed by run {next}"))?;
    // What rises does so per run (P25).
    let before = &if run < next { of_another_run(before) } else { before.clone() };
    let (done, failed) = (sets(before), sets(after));
    let lost = done.0.iter().find(|index| !failed.0.contains(*index));
    hold(promise, lost.is_none(), || format!("status forgot that shard {lost:?} is done"))?;
    let revived = done.1.iter().find(|index| !failed.0.contains(*index) && !failed.1.contains(*index));
    hold(promise, revived.is_none(), || format!("shard {revived:?} was given up and is not"))?;
    let raised = match (takeover_of(before), takeover_of(after)) {
        (Some(old), Some(new)) => new == old || new.term > old.term,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let takeovers = || format!("{:?} was followed by {:?}", takeover_of(before), takeover_of(after));
    hold(promise, raised, takeovers)?;
    let digest = |status: &ShardJobStatus| status.plan.as_ref().map(|plan| plan.digest.clone());
    let planned = digest(before).is_none() || digest(before) == digest(after);
    hold(promise, planned, || format!("the plan {:?} became {:?}", digest(before), digest(after)))?;
    let ended = |status: &ShardJobStatus, kind: &str| {
        status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    // Without a plan a changed spec is a new beginning.
    let final_before = ["Complete", "Failed"].into_iter().find(|kind| before.plan.is_some() && ended(before, kind));
    let stands = final_before.is_none_or(|kind| ended(after, kind));
    hold(promise, stands, || format!("the end {final_before:?} was not the end"))?;
    let has_run = |status: &ShardJobStatus| status.recovery.as_ref().is_some_and(|notes| notes.finalized);
    let finalized = (has_run(before), has_run(after));
    let decided = |status: &ShardJobStatus| status.recovery.as_ref().map(|notes| notes.verdict.clone());
    let (before, decided) = (decided(before).unwrap_or_default(), decided(after).unwrap_or_default());
    let deleting = after.display.as_ref().is_some_and(|display| display.status == "Deleting");
    let kept = before.is_empty() || before == decided || ended(after, "Failed") || deleting;
    hold(promise, kept, || format!("that the job fails was decided, and forgotten: {before}"))?;
    let forgotten = finalized.0 && !finalized.1 && !ended(after, "Complete") && !deleting;
    hold(promise, !forgotten, || "that the last command has run was stored, and forgotten".into())
}

/// What holds for the run after this one: who wrote, and the plan.
fn of_another_run(status: &ShardJobStatus) -> ShardJobStatus {
    let notes = status.recovery.clone().map(|notes| Recovery { verdict: String::new(), ..notes });
    ShardJobStatus { shards: None, conditions: Vec::new(), recovery: notes, ..status.clone() }
}

fn sets(status: &ShardJobStatus) -> (RangeSet, RangeSet) {
    let read = |text: &str| text.parse().unwrap_or_default();
    status
        .shards
        .as_ref()
        .map_or_else(Default::default, |shards| (read(&shards.completed_indexes), read(&shards.failed_indexes)))
}

/// I19. A lease is granted by right: the take-over it is under was stored before (P1), and so was a reservation that
/// covers the shard, so that a successor knows that it may have been granted (P18).
///
/// # Errors
/// When it was not.
pub fn granted_by_right(
    epoch: Epoch,
    index: ShardIndex,
    stored: Option<Takeover>,
    reserved: ShardIndex,
) -> Result<(), Broken> {
    hold("I19 granted by right", stored == Some(epoch.takeover) && index < reserved, || {
        format!("shard {index} was granted under {epoch}; stored are {stored:?} and a reservation below {reserved}")
    })
}

/// I20. What a worker is told is known is in a stored status (P12).
///
/// # Errors
/// When it is not.
pub fn acknowledged_is_stored(index: ShardIndex, stored: &RangeSet) -> Result<(), Broken> {
    hold("I20 acknowledged is stored", stored.contains(index), || {
        format!("the result of shard {index} was acknowledged before a stored status held it")
    })
}

/// I21. Progress that was acknowledged is not lost: whoever is given the shard next goes on from there or further (P12,
/// P21).
///
/// # Errors
/// When it begins further back.
pub fn kept_what_was_acknowledged(
    index: ShardIndex,
    acknowledged: Checkpoint,
    resume: Option<Checkpoint>,
) -> Result<(), Broken> {
    let kept = resume.is_some_and(|resume| resume.position >= acknowledged.position);
    hold("I21 acknowledged progress is kept", kept, || {
        format!("shard {index}: {acknowledged:?} was acknowledged, and the next lease goes on from {resume:?}")
    })
}

/// I22. Status is written at most once a second, and only when it differs. What comes once in a run and is waited for may
/// come sooner: the plan, what must be known before the sweep, the end.
///
/// # Errors
/// When it was written sooner, or for nothing.
pub fn writes_are_paced(millis: u64, before: &ShardJobStatus, after: &ShardJobStatus) -> Result<(), Broken> {
    let promise = "I22 status writes are paced";
    let newly = |told: fn(&ShardJobStatus) -> bool| told(after) && !told(before);
    let awaited = newly(|status| status.plan.is_some())
        || newly(|status| status.completion_time.is_some())
        || newly(|status| status.recovery.as_ref().is_some_and(|notes| !notes.verdict.is_empty()))
        || newly(|status| status.recovery.as_ref().is_some_and(|notes| notes.finalized));
    hold(promise, millis >= 1000 || awaited, || format!("status was written again {millis} ms after it was stored"))?;
    hold(promise, before != after, || "a status was written that differs in nothing from the last".into())
}

/// I23. A worker without an operator goes on alone for as long as it was told (P17).
///
/// # Errors
/// When it stopped sooner.
pub fn goes_on_alone(alone_millis: u64, orphan_millis: u64) -> Result<(), Broken> {
    hold("I23 workers go on alone", alone_millis >= orphan_millis, || {
        format!("a worker stopped after {alone_millis} ms without an operator, and was to go on for {orphan_millis} ms")
    })
}

/// I24. A worker follows the highest term: once welcomed under one it is never commanded under a lower one (P22).
///
/// # Errors
/// When it was.
pub fn follows_the_highest(before: Takeover, now: Takeover) -> Result<(), Broken> {
    hold("I24 workers follow the highest term", now.term >= before.term, || {
        format!("a worker that was welcomed by {before:?} follows {now:?}")
    })
}

/// I25. Who is told to rest gets no new work: a job that is suspended, deleted, or of another spec than its
/// plan grants no shard (P4, P24, P26).
///
/// # Errors
/// When it does.
pub fn rests_when_told(index: ShardIndex, rests: bool) -> Result<(), Broken> {
    hold("I25 rests when told", !rests, || format!("shard {index} was granted after the job was to stop"))
}
