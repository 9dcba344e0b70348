//! How large a status may become: as many holes as there may be, each with the longest record, and as many failures.

use std::fmt::Write;

use hyperflow_api::{
    ShardJobStatus,
    ids::{MAX_SHARDS, WorkerId},
    message::{Hello, PROTOCOL, Report},
    status::{FailureSample, PlanStatus, Recovery, ShardCounts},
};
use hyperflow_core::{
    Now,
    coordinator::{self, Coordinator, Effect, Event, Limits, Pod, Seen, SessionId},
    job::Job,
    recovery::FORMAT_VERSION,
};

use super::checks::status::{LATER, noop, seen, through_json};

/// As the coordinator has them: most holes, and most shards that may be given up.
const WINDOW: u32 = coordinator::WINDOW as u32;
const FAILED_MOST: u32 = 2048;

/// The longest name that a node may have.
const NODE_LETTERS: usize = 253;

/// A job of the most shards, with every second one of the last ones open, and failed ones between done ones.
fn left_behind() -> Seen {
    let mut spec = noop(MAX_SHARDS);
    spec["parallelism"] = 5000.into();
    let mut seen = seen(spec);
    let (open, failed) = (MAX_SHARDS - 2 * WINDOW, MAX_SHARDS - 2 * (WINDOW + FAILED_MOST));
    let mut waiting = String::new();
    let mut counts = ShardCounts { completed_indexes: format!("0-{}", failed - 2), ..ShardCounts::default() };
    for place in 0..WINDOW {
        let index = open + 2 * place;
        let comma = if place == 0 { "" } else { "," };
        let checkpoint = format!("c{number}@{number}:ffffffffffffffff", number = u64::MAX);
        write!(waiting, "{comma}{index}/u{}/f99/l19/k2/{checkpoint}", LATER.unix).unwrap();
        write!(counts.completed_indexes, ",{}", index + 1).unwrap();
    }
    for place in 0..FAILED_MOST {
        let comma = if place == 0 { "" } else { "," };
        write!(counts.failed_indexes, "{comma}{}", failed + 2 * place).unwrap();
    }
    let between: String = (0..FAILED_MOST - 1).map(|place| format!(",{}", failed + 2 * place + 1)).collect();
    let (first, last) = counts.completed_indexes.split_once(',').unwrap();
    counts.completed_indexes = format!("{first}{between},{},{last}", open - 1);
    let samples = (0..10).map(|number| FailureSample {
        class: "Application".into(),
        reason: format!("TaskFailedForReason{number}"),
        count: i32::MAX,
        index: Some(999_999),
        node_name: "n".repeat(NODE_LETTERS),
        message: "m".repeat(1024),
        last_time: None,
    });
    seen.status = ShardJobStatus {
        plan: Some(PlanStatus { shards: MAX_SHARDS.cast_signed(), ..PlanStatus::default() }),
        shards: Some(counts),
        failures: samples.collect(),
        recovery: Some(Recovery {
            format_version: FORMAT_VERSION,
            term: 1_000_000,
            frozen: Job::check(&seen.spec).unwrap().frozen,
            reserved_through: MAX_SHARDS.cast_signed(),
            waiting,
            ..Recovery::default()
        }),
        ..ShardJobStatus::default()
    };
    seen
}

fn uid(number: u32) -> String {
    format!("{number:08}-0000-4000-8000-000000000000")
}

fn pod(number: u32, node_letters: usize) -> Pod {
    Pod {
        name: uid(number),
        uid: uid(number),
        node: Some(format!("{number:0node_letters$}")),
        zone: None,
        leaving: false,
        trouble: None,
        made_of: None,
        disruption: None,
        ends: 0,
        ended: None,
    }
}

/// Handles an event; every status that is to be stored, is.
fn handle(core: &mut Coordinator, now: Now, event: Event, last: &mut Box<ShardJobStatus>) {
    for effect in core.handle(now, event) {
        if let Effect::StoreStatus { revision, status } = effect {
            *last = status;
            core.handle(now, Event::StatusStored(revision));
        }
    }
}

/// Every open shard has a worker of its own, on a node of its own.
fn with_every_hole_leased(node_letters: usize) -> ShardJobStatus {
    let seen = left_behind();
    let mut core = Coordinator::take_over(LATER, &seen, u64::MAX, 0, Limits::default()).unwrap();
    let mut last = Box::default();
    handle(&mut core, LATER, Event::Flush, &mut last);
    let pods = (0..WINDOW).map(|number| pod(number, node_letters)).collect();
    handle(&mut core, LATER, Event::PodsSeen(pods), &mut last);
    for number in 0..WINDOW {
        let session = SessionId(number.into());
        let worker = WorkerId { pod_uid: uid(number), nonce: 1 };
        let job = seen.uid.clone();
        let hello = Hello { protocol: PROTOCOL, job, worker, slots: 1, held: vec![], heard: 0, host: None };
        handle(&mut core, LATER, Event::SessionOpened { session, hello }, &mut last);
        let report = Report { capacity: 1, ..Report::default() };
        handle(&mut core, LATER, Event::Reported { session, report }, &mut last);
    }
    handle(&mut core, LATER, Event::Flush, &mut last);
    handle(&mut core, Now { millis: LATER.millis + 9000, ..LATER }, Event::Flush, &mut last);
    assert_eq!(core.shards().leased().len(), WINDOW as usize);
    assert_eq!(core.shards().failed().len(), FAILED_MOST);
    *last
}

#[test]
fn with_as_many_holes_as_there_may_be_it_is_small_enough() {
    let status = with_every_hole_leased(NODE_LETTERS);
    let notes = status.recovery.as_ref().unwrap();
    assert_eq!(notes.attempts.split(',').count(), WINDOW as usize);
    assert_eq!(through_json(&status), status);
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!(
        size <= coordinator::STATUS_BYTES,
        "{size} bytes: {} of workers, {} of attempts",
        notes.workers.len(),
        notes.attempts.len()
    );
}
