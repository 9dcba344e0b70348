//! What status says in conditions: how far the job is, and why nothing moves.

mod workers;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{
    Now,
    coordinator::{self, Coordinator, Verdict},
    reasons::NotNow,
    status,
};

/// What a condition says: type, status, reason, message.
pub(crate) type Says<'a> = (&'a str, bool, &'a str, String);

pub(crate) fn conditions(known: &Coordinator, now: Now) -> Vec<Condition> {
    let planned: Says<'_> = match &known.plan {
        Some((plan, _)) if plan.files == 0 => ("Planned", true, "PlanStored", format!("{} shards", plan.shards)),
        Some((plan, _)) => {
            let message = format!("{} file(s), {} bytes, {} shards", plan.files, plan.bytes, plan.shards);
            ("Planned", true, "PlanStored", message)
        }
        None if known.conclusion.is_some() => ("Planned", false, "Ended", "the job ended before it had a plan".into()),
        None if known.workers.is_empty() => {
            ("Planned", false, "WaitingForWorker", "no worker yet to list the input".into())
        }
        None => ("Planned", false, "Planning", "a worker lists the input".into()),
    };
    let available = workers::available(known);
    let missing = Some(available.3.clone()).filter(|_| !available.1);
    let mut says = vec![planned, available];
    let suspended = suspended(known);
    let rests = suspended.as_ref().is_some_and(|(_, at_rest, ..)| *at_rest);
    says.extend(suspended);
    says.extend(match &known.conclusion {
        None | Some((Verdict::Deleted, _)) => unfinished(waits_for(known), missing, rests),
        Some((Verdict::Complete, _)) => complete(known),
        Some((Verdict::Failed { reason, message }, _)) => failed(reason, message),
    });
    set(&known.last_status().conditions, says, known.seen.generation, now)
}

/// Why the job is not done yet.
fn waits_for(known: &Coordinator) -> NotNow {
    match (known.seen.deleting, known.is_suspended()) {
        (true, _) => NotNow::Deleting,
        (_, true) => NotNow::Suspended,
        _ if matches!(known.not_now, NotNow::Sweeping | NotNow::Finished) => known.not_now,
        _ if known.room.is_full() => NotNow::OutputFull,
        _ if known.shards.leased().is_empty() => known.not_now,
        _ => NotNow::SlotsFull,
    }
}

/// As in a Job: True when nothing runs any more. A job that never was suspended does not speak of it.
fn suspended(known: &Coordinator) -> Option<Says<'static>> {
    let last = known.last_status().conditions.iter().find(|condition| condition.type_ == "Suspended");
    let spoken_of = last.is_some();
    // Before the pods are seen, what was said last stands: a take-over changes nothing.
    let stood = known.pool.is_unknown() && last.is_some_and(|last| last.status == "True");
    match (known.is_suspended(), known.pool.is_empty() || stood) {
        (true, true) => Some(("Suspended", true, "JobSuspended", "no worker runs; everything done is kept".into())),
        (true, false) => Some(("Suspended", false, "Suspending", "workers write checkpoints and leave".into())),
        (false, _) if spoken_of => Some(("Suspended", false, "JobResumed", String::new())),
        (false, _) => None,
    }
}

/// `missing` is why there are not the workers there should be. A job that rests because it was asked to is as it should be:
/// whoever waits for it by kstatus waits no longer.
fn unfinished<'a>(waits_for: NotNow, missing: Option<String>, rests: bool) -> [Says<'a>; 4] {
    let reason = "Unfinished";
    let missing = missing.filter(|_| waits_for == NotNow::NoWorker);
    [
        ("Reconciling", !rests, waits_for.reason(), missing.unwrap_or_else(|| waits_for.message().into())),
        ("Stalled", false, reason, String::new()),
        ("Complete", false, reason, String::new()),
        ("Failed", false, reason, String::new()),
    ]
}

fn complete<'a>(known: &Coordinator) -> [Says<'a>; 4] {
    let (reason, message) = coordinator::success(&known.shards);
    [
        ("Reconciling", false, "Finished", "nothing is left to do".into()),
        ("Stalled", false, "Finished", String::new()),
        ("Complete", true, reason, message),
        ("Failed", false, reason, String::new()),
    ]
}

pub(crate) fn failed<'a>(reason: &'a str, message: &str) -> [Says<'a>; 4] {
    [
        ("Reconciling", false, reason, String::new()),
        ("Stalled", true, reason, message.into()),
        ("Complete", false, reason, String::new()),
        ("Failed", true, reason, message.into()),
    ]
}

/// Conditions with the time of their last transition, which changes only when their status does.
pub(crate) fn set(old: &[Condition], says: Vec<Says<'_>>, generation: i64, now: Now) -> Vec<Condition> {
    let condition = |(kind, status, reason, message): Says<'_>| {
        let status = if status { "True" } else { "False" };
        let same = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
        let since = same.map(|condition| condition.last_transition_time.clone());
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: Some(generation),
            last_transition_time: since.or_else(|| status::time(now.unix)).unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        }
    };
    says.into_iter().map(condition).collect()
}
