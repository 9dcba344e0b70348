//! The status that an earlier operator left: its successor knows the same, and leaves it to the next one.

use std::collections::BTreeMap;

use hyperflow_api::{
    ShardJobStatus,
    ids::{JobUid, MAX_SHARDS, ShardIndex},
    status::Recovery,
};
use hyperflow_core::{
    Now,
    coordinator::{Coordinator, Effect, Event, Limits, Seen},
    history::History,
    invariants,
    job::{Job, Refusal},
    ranges::RangeSet,
    recovery::{decode_attempts, decode_waiting},
    shards::Shards,
    status::is_terminal,
};
use serde_json::{Value, json};

/// When whoever comes after takes over: another clock, and the same time of day.
pub const LATER: Now = Now { millis: 77_000, unix: 1_763_900_000 };

/// A status as JSON.
pub fn left(bytes: &[u8]) {
    let Ok(mut status) = serde_json::from_slice::<ShardJobStatus>(bytes) else { return };
    let planned = status.plan.as_ref().map_or(0, |plan| u32::try_from(plan.shards).unwrap_or(0)).min(MAX_SHARDS);
    let files = status.plan.as_ref().is_some_and(|plan| plan.files > 0);
    let mut seen = seen(if files { copy() } else { noop(planned) });
    if let Some(notes) = &mut status.recovery {
        // Otherwise hardly any status would come further than to another spec.
        notes.frozen = Job::check(&seen.spec).expect("the spec is sound").frozen;
    }
    seen.status = status;
    let mut successor = match take_over(&seen, LATER) {
        Ok(successor) => successor,
        Err(refusal) => return assert_eq!(refusal.field, "status.recovery", "{refusal}"),
    };
    knows_what_was_left(&seen.status, successor.shards());
    let Some(again) = first_status(&mut successor, LATER.unix) else { return };
    let term = |status: &ShardJobStatus| status.recovery.as_ref().map_or(0, |notes| notes.term);
    assert!(term(&again) > term(&seen.status) || term(&again) == i64::MAX, "the term did not rise");
    let status = through_json(&again);
    assert_eq!(status, again, "JSON changes it");
    let ended = is_terminal(&seen.status, seen.generation);
    let second = take_over(&Seen { status, ..seen }, LATER).expect("what we leave can be read");
    let (before, after) = (successor.shards(), second.shards());
    assert_eq!((after.done(), after.failed()), (before.done(), before.failed()));
    // Of a job that has ended, what would be needed to try again is not written.
    if !ended {
        same_knowledge(before, after);
    }
}

/// A job as an operator finds it, without a status.
pub fn seen(spec: Value) -> Seen {
    Seen {
        uid: JobUid("5b1e0c44".into()),
        namespace: "n".into(),
        name: "j".into(),
        generation: 1,
        spec: serde_json::from_value(spec).expect("the spec is one"),
        status: ShardJobStatus::default(),
        deleting: false,
        abandoned: false,
    }
}

/// A job over a file.
pub fn copy() -> Value {
    json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"},
        "workers": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    })
}

/// A job over numbers.
pub fn noop(shards: u32) -> Value {
    json!({"source": {"numbers": {"count": shards}}, "task": {"noop": {}}})
}

/// The next operator process.
///
/// # Errors
/// When it cannot read what is left.
pub fn take_over(seen: &Seen, now: Now) -> Result<Coordinator, Refusal> {
    Coordinator::take_over(now, seen, 11, 0, Limits::default())
}

/// What it says first.
pub fn first_status(coordinator: &mut Coordinator, unix: i64) -> Option<ShardJobStatus> {
    coordinator.handle(Now { unix, ..LATER }, Event::Flush).into_iter().find_map(|effect| match effect {
        Effect::StoreStatus { status, .. } => Some(*status),
        _ => None,
    })
}

/// As the API server gives it back.
pub fn through_json(status: &ShardJobStatus) -> ShardJobStatus {
    let text = serde_json::to_string(status).expect("a status is written");
    serde_json::from_str(&text).expect("what we write is read")
}

/// The successor's books are what the status says, and nothing else.
fn knows_what_was_left(status: &ShardJobStatus, shards: &Shards) {
    let Some(notes) = status.recovery.as_ref().filter(|_| status.plan.is_some()) else { return };
    invariants::counts_add_up(shards).expect("counts add up");
    invariants::settled_shards_rest(shards).expect("settled shards rest");
    let counts = status.shards.clone().unwrap_or_default();
    let set = |text: &str| text.parse::<RangeSet>().expect("it was read");
    assert_eq!(*shards.done(), set(&counts.completed_indexes));
    assert_eq!(*shards.failed(), set(&counts.failed_indexes));
    let kept = |(index, _): &(ShardIndex, History)| *index < shards.total() && !shards.is_settled(*index);
    let expected: BTreeMap<_, _> = histories(notes).into_iter().filter(kept).collect();
    let waiting: BTreeMap<_, _> = shards.waiting().iter().map(|(&index, waiting)| (index, waiting.history)).collect();
    assert_eq!(waiting, expected);
    assert!(shards.leased().is_empty());
    let reserved = u32::try_from(notes.reserved_through).unwrap_or(0).min(shards.total());
    assert!(shards.next() >= reserved, "what may have been granted is taken for new");
}

/// What the notes say of each shard; of one that is in both, what it waits with.
fn histories(notes: &Recovery) -> BTreeMap<ShardIndex, History> {
    let mut histories = decode_attempts(&notes.attempts).expect("it was read");
    let waiting = decode_waiting(&notes.waiting).expect("it was read");
    histories.extend(waiting.into_iter().map(|(index, (_, history))| (index, history)));
    histories
}

/// The same is done, failed and pending, and each of the others waits with the history that it had.
pub fn same_knowledge(before: &Shards, after: &Shards) {
    assert_eq!((after.done(), after.failed()), (before.done(), before.failed()));
    let leased = before.leased().iter().map(|(&index, leased)| (index, leased.history));
    let waiting = before.waiting().iter().map(|(&index, waiting)| (index, waiting.history));
    let histories: BTreeMap<_, _> = leased.chain(waiting).collect();
    let kept: BTreeMap<_, _> = after.waiting().iter().map(|(&index, waiting)| (index, waiting.history)).collect();
    assert_eq!(kept, histories);
    assert!(after.leased().is_empty());
    assert_eq!((after.total(), after.pending()), (before.total(), before.pending()));
}
