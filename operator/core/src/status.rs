//! Knowledge to status and back.

use std::collections::BTreeMap;

use hyperflow_api::{
    JOB_UID_LABEL, ShardJobSpec, ShardJobStatus,
    ids::{MAX_SHARDS, ShardIndex},
    message::{Planned, StoredReport},
    status::{Display, FailureSample, PlanStatus, Recovery, ReportStatus, ShardCounts, WorkerCounts},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    Now,
    blocks::Notes,
    clock::Clock,
    conditions::{self, conditions},
    coordinator::{Coordinator, Seen, Verdict},
    estimate::{self, Forecast},
    job::Refusal,
    ranges::{RangeError, RangeSet},
    recovery::{self, Attempt, RecoveryError},
    rerun,
    shards::{Seat, Shards, Waiting},
};

/// What an earlier operator process left in the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left {
    pub(crate) term: u64,
    /// Which run it speaks of, from 1.
    pub(crate) run: u32,
    /// The nonce of the run that was asked for last.
    pub(crate) nonce: Option<String>,
    pub(crate) frozen: String,
    pub(crate) plan: Option<(Planned, i64)>,
    pub(crate) shards: Shards,
    pub(crate) reserved_through: ShardIndex,
    pub(crate) failures: Vec<FailureSample>,
    pub(crate) clock: Clock,
    /// Who has which group of blocks.
    pub(crate) blocks: Notes,
    /// The end that was decided, and was not to be yet.
    pub(crate) verdict: Option<Verdict>,
    /// The last command has succeeded.
    pub(crate) finalized: bool,
}

/// A status that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeftError {
    #[error("is of version {0}, and this operator reads version {own}: upgrade the operator", own = recovery::FORMAT_VERSION)]
    Version(i32),
    #[error("cannot be read: {0}; restore the status, or create the job again")]
    Notes(#[from] RecoveryError),
    #[error("`status.shards` cannot be read: {0}; restore the status, or create the job again")]
    Ranges(#[from] RangeError),
    #[error(
        "`status.shards` speaks of shards that the plan has not or no plan may have, or twice of one; restore the status, or create the job again"
    )]
    Counts,
}

impl Left {
    /// Reads it: leased shards wait one lease for the worker that had them to claim them (P18). Clocks differ from process
    /// to process, so whatever a date says, no retry waits for longer than `longest_wait` milliseconds.
    pub(crate) fn read(
        now: Now,
        status: &ShardJobStatus,
        lease_millis: u64,
        longest_wait: u64,
    ) -> Result<Self, LeftError> {
        let Some(notes) = &status.recovery else { return Ok(Self { run: 1, ..Self::default() }) };
        if notes.format_version != recovery::FORMAT_VERSION {
            return Err(LeftError::Version(notes.format_version));
        }
        let term = u64::try_from(notes.term).unwrap_or(0);
        let (run, nonce) = (run_of(status), status.observed_rerun_nonce.clone());
        let (failures, clock) = (status.failures.clone(), Clock::read(now, &notes.clock)?);
        let Some(plan) = &status.plan else { return Ok(Self { term, run, nonce, failures, clock, ..Self::default() }) };
        let claimed_by = now.millis + lease_millis;
        let mut waiting: BTreeMap<ShardIndex, Waiting> = recovery::decode_attempts(&notes.attempts)?
            .into_iter()
            .map(|(index, history)| (index, Waiting { until: claimed_by, unclaimed: true, history }))
            .collect();
        for (index, (unix, history)) in recovery::decode_waiting(&notes.waiting)? {
            let seconds = u64::try_from(unix.saturating_sub(now.unix)).unwrap_or(0);
            let until = now.millis + seconds.saturating_mul(1000).min(longest_wait);
            waiting.insert(index, Waiting { until, unclaimed: false, history });
        }
        let counts = status.shards.clone().unwrap_or_default();
        let reserved_through = count(notes.reserved_through);
        let (done, failed): (RangeSet, RangeSet) = (counts.completed_indexes.parse()?, counts.failed_indexes.parse()?);
        let total = count(plan.shards);
        let beyond = |set: &RangeSet| set.ranges().last().is_some_and(|range| range.end > total);
        if total > MAX_SHARDS || beyond(&done) || beyond(&failed) || failed.iter().any(|index| done.contains(index)) {
            return Err(LeftError::Counts);
        }
        waiting.retain(|index, _| *index < total && !done.contains(*index) && !failed.contains(*index));
        Ok(Self {
            term,
            run,
            nonce,
            frozen: notes.frozen.clone(),
            plan: Some((planned(plan), plan.time.as_ref().map_or(now.unix, |time| time.0.as_second()))),
            shards: Shards::resume(total, reserved_through, done, failed, waiting),
            reserved_through,
            failures,
            clock,
            blocks: Notes::decode(&notes.blocks)?,
            finalized: notes.finalized,
            verdict: notes
                .verdict
                .split_once(' ')
                .map(|(reason, message)| Verdict::Failed { reason: reason.into(), message: message.into() }),
        })
    }
}

fn planned(plan: &PlanStatus) -> Planned {
    Planned {
        shards: count(plan.shards),
        files: u64::try_from(plan.files).unwrap_or(0),
        bytes: u64::try_from(plan.bytes).unwrap_or(0),
        digest: plan.digest.clone(),
        url: plan.url.clone().unwrap_or_default(),
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn number(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

pub(crate) fn time(unix: i64) -> Option<Time> {
    Timestamp::from_second(unix).ok().map(Time)
}

/// The run that a status speaks of.
pub(crate) fn run_of(status: &ShardJobStatus) -> u32 {
    status.run.map_or(1, count).max(1)
}

/// Counts that add up to `total`.
pub(crate) fn counts(shards: &Shards) -> ShardCounts {
    ShardCounts {
        total: number(shards.total()),
        succeeded: number(shards.done().len()),
        failed: number(shards.failed().len()),
        active: number(shards.leased().len()),
        waiting: number(shards.waiting().len()),
        pending: number(shards.pending()),
        completed_indexes: shards.done().to_string(),
        failed_indexes: shards.failed().to_string(),
    }
}

/// All that status says, as it is known now.
pub(crate) fn snapshot(known: &Coordinator, now: Now, reserved: ShardIndex) -> ShardJobStatus {
    let old = known.last_status();
    let ended = known.conclusion.as_ref().map(|(_, unix)| *unix);
    let counts = counts(&known.shards);
    let status = ShardJobStatus {
        observed_generation: Some(known.seen.generation),
        conditions: conditions(known, now),
        display: Some(Display {
            eta: old.display.as_ref().map(|display| display.eta.clone()).unwrap_or_default(),
            ..display(known, &counts)
        }),
        start_time: old.start_time.clone().or_else(|| time(now.unix).filter(|_| !known.is_suspended())),
        completion_time: ended.and_then(time),
        estimated_completion_time: old.estimated_completion_time.clone(),
        run: Some(number(known.run)),
        observed_rerun_nonce: known.nonce.clone(),
        plan: known.plan.as_ref().map(|(plan, unix)| PlanStatus {
            shards: number(plan.shards),
            files: i64::try_from(plan.files).unwrap_or(i64::MAX),
            bytes: i64::try_from(plan.bytes).unwrap_or(i64::MAX),
            digest: plan.digest.clone(),
            url: Some(plan.url.clone()).filter(|url| !url.is_empty()),
            time: time(*unix),
        }),
        shards: known.plan.as_ref().map(|_| counts),
        throughput: old.throughput.clone(),
        workers: Some(WorkerCounts {
            desired: number(known.desired()),
            current: number(known.pool.current()),
            ready: number(known.ready()),
            selector: format!("{JOB_UID_LABEL}={}", known.seen.uid),
        }),
        failures: known.failures.clone(),
        blocks: known.block_counts().filter(|_| ended.is_none()),
        report: known.report.as_ref().map(report).or_else(|| old.report.clone().filter(|_| run_of(old) == known.run)),
        recovery: Some(notes(known, now, reserved)),
    };
    // An estimate is no reason to write.
    if status == *old { status } else { with_forecast(known, now, status) }
}

/// When the job will be complete, as far as that can be known.
fn with_forecast(known: &Coordinator, now: Now, status: ShardJobStatus) -> ShardJobStatus {
    let last = status.estimated_completion_time.as_ref().zip(status.throughput.clone());
    let last = last.map(|(complete, throughput)| Forecast { throughput, complete: complete.0.as_second() });
    let left = known.shards.total() - known.shards.done().len() - known.shards.failed().len();
    let forecast = known.estimate.forecast(now, left, last).filter(|_| known.plan.is_some());
    let eta = forecast.as_ref().map(|forecast| estimate::clock_time(now.unix, forecast.complete));
    ShardJobStatus {
        estimated_completion_time: forecast.as_ref().and_then(|forecast| time(forecast.complete)),
        display: status.display.map(|display| Display { eta: eta.unwrap_or_default(), ..display }),
        throughput: forecast.map(|forecast| forecast.throughput),
        ..status
    }
}

fn report(report: &StoredReport) -> ReportStatus {
    ReportStatus { url: report.url.clone(), digest: report.digest.clone() }
}

fn notes(known: &Coordinator, now: Now, reserved: ShardIndex) -> Recovery {
    let ended = known.conclusion.is_some();
    let attempt = |(&index, leased): (&ShardIndex, &crate::shards::Leased)| Attempt {
        index,
        seat: leased.lease.seat,
        epoch: leased.lease.epoch,
        history: leased.history,
    };
    let describe = |seat: Seat| {
        let worker = known.workers.get(&seat)?;
        Some((worker.id.short_pod(), known.pool.node(&worker.id.pod_uid).unwrap_or_default()))
    };
    let (workers, attempts) = recovery::encode_attempts(known.shards.leased().iter().map(attempt), describe);
    let unix = |until: u64| {
        let seconds = until.saturating_sub(now.millis).div_ceil(1000);
        now.unix.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    let waiting = known.shards.waiting().iter().map(|(&index, waiting)| (index, unix(waiting.until), waiting.history));
    Recovery {
        format_version: recovery::FORMAT_VERSION,
        term: i64::try_from(known.takeover.term).unwrap_or(i64::MAX),
        takeover: format!("{:016x}", known.takeover.random),
        frozen: known.frozen.clone(),
        verdict: match &known.verdict {
            Some(Verdict::Failed { reason, message }) if !ended => format!("{reason} {message}"),
            _ => String::new(),
        },
        finalized: known.is_finalized(),
        reserved_through: number(reserved),
        clock: known.clock.to_string(),
        workers,
        attempts,
        waiting: if ended { String::new() } else { recovery::encode_waiting(waiting) },
        blocks: if ended || !known.blocks_are_kept() { String::new() } else { known.blocks.notes() },
    }
}

fn display(known: &Coordinator, counts: &ShardCounts) -> Display {
    let status = match (&known.conclusion, &known.plan) {
        (Some((Verdict::Complete, _)), _) => "Complete",
        (Some((Verdict::Failed { .. }, _)), _) => "Failed",
        _ if known.seen.deleting => "Deleting",
        _ if known.is_suspended() => "Suspended",
        (Some((Verdict::Deleted, _)), _) => "Deleting",
        (None, None) => "Planning",
        (None, Some(_)) => "Running",
    };
    let progress = known.plan.as_ref().map(|_| format!("{}/{}", counts.succeeded, counts.total));
    Display { status: status.into(), progress: progress.unwrap_or_default(), ..Display::default() }
}

/// The status of a job whose spec is not sound: nothing is made, and it is looked at again when the spec changes.
#[must_use]
pub fn refused(now: Now, seen: &Seen, refusal: &Refusal) -> ShardJobStatus {
    let says = conditions::failed("InvalidSpec", &refusal.to_string());
    ShardJobStatus {
        observed_generation: Some(seen.generation),
        conditions: conditions::set(&seen.status.conditions, says.into(), seen.generation, now),
        display: Some(Display { status: "Failed".into(), ..Display::default() }),
        ..seen.status.clone()
    }
}

/// Whether nothing is left to do for this object: it ended, and its spec is the one that ended.
///
/// A job that failed before it had a plan is looked at again when its spec changes.
#[must_use]
pub fn is_terminal(status: &ShardJobStatus, generation: i64) -> bool {
    let is =
        |kind: &str| status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    is("Complete") || (is("Failed") && (status.plan.is_some() || status.observed_generation == Some(generation)))
}

/// Whether nothing is left to do for a job: it has ended, and no other run is asked for.
#[must_use]
pub fn has_ended(spec: &ShardJobSpec, status: &ShardJobStatus, generation: i64) -> bool {
    is_terminal(status, generation) && !rerun::is_asked(spec, status)
}

/// The end that a status speaks of, and when it was: an operator that finds it has nothing to do but to clear the pool.
pub(crate) fn end_of(status: &ShardJobStatus, generation: i64) -> Option<(Verdict, i64)> {
    if !is_terminal(status, generation) {
        return None;
    }
    let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed" && condition.status == "True");
    let verdict = failed.map_or(Verdict::Complete, |failed| Verdict::Failed {
        reason: failed.reason.clone(),
        message: failed.message.clone(),
    });
    Some((verdict, status.completion_time.as_ref().map_or(0, |time| time.0.as_second())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_status_makes_the_reader_panic(
            attempts in "[0-9wfl/.,@:c]{0,60}",
            waiting in "[0-9]{1,7}/u-?[0-9]{1,19}(/l[0-9])?",
            ranges in "[0-9,-]{0,20}",
            number in any::<i32>(),
        ) {
            let status = ShardJobStatus {
                plan: Some(PlanStatus { shards: number, ..PlanStatus::default() }),
                shards: Some(ShardCounts { completed_indexes: ranges.clone(), failed_indexes: ranges, ..ShardCounts::default() }),
                recovery: Some(Recovery {
                    format_version: recovery::FORMAT_VERSION,
                    reserved_through: number,
                    attempts,
                    waiting,
                    ..Recovery::default()
                }),
                ..ShardJobStatus::default()
            };
            if let Ok(left) = Left::read(Now { millis: 5, unix: 1_763_900_000 }, &status, 10_000, 30_000) {
                crate::invariants::counts_add_up(&left.shards).unwrap();
                crate::invariants::settled_shards_rest(&left.shards).unwrap();
            }
        }
    }
}
