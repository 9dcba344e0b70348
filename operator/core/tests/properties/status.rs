//! What a coordinator writes into status is what its successor knows, whenever it is written.

use std::cell::RefCell;
use std::collections::BTreeSet;

use hyperflow_api::{ShardJobStatus, message::FailureClass};
use hyperflow_core::{
    Now,
    coordinator::{Coordinator, STATUS_BYTES, Seen},
    status::is_terminal,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::{
    checks::status::{self, copy, first_status, noop, same_knowledge, seen, take_over, through_json},
    desk::{Desk, Said, Step},
    messages::CLASSES,
};

/// A driver that never comes there proves nothing about it.
const PATHS: [&str; 12] = [
    "a checkpoint at the end of numbers",
    "a job that ended",
    "done",
    "failed",
    "given back",
    "in limbo",
    "leased",
    "leased after failures",
    "planned from a file",
    "suspected",
    "taken over",
    "waits with a checkpoint",
];

fn said() -> impl Strategy<Value = Said> {
    let edge = || prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)];
    let classes: Vec<FailureClass> = CLASSES.into();
    prop_oneof![
        3 => (edge(), edge()).prop_map(|(position, digest)| Said::Checkpointed { position, digest }),
        4 => Just(Said::Published),
        3 => (select(classes), any::<bool>()).prop_map(|(class, unusable)| Said::Failed { class, unusable }),
        1 => Just(Said::Released),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pod = || 0_usize..3;
    let say = (pod(), any::<usize>(), said()).prop_map(|(pod, lease, said)| Step::Say { pod, lease, said });
    let open = (pod(), 1_u32..3, any::<bool>());
    prop_oneof![
        4 => open.prop_map(|(pod, slots, same_process)| Step::Open { pod, slots, same_process }),
        2 => pod().prop_map(|pod| Step::Close { pod }),
        4 => (pod(), 0_u32..5).prop_map(|(pod, capacity)| Step::Want { pod, capacity }),
        3 => pod().prop_map(|pod| Step::Beat { pod }),
        12 => say,
        6 => prop_oneof![Just(1000_u64), 0_u64..5000].prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Pass { millis: 11_000 }),
        1 => pod().prop_map(|pod| Step::PodGone { pod }),
        1 => (pod(), any::<bool>()).prop_map(|(pod, out_of_memory)| Step::ProcessEnded { pod, out_of_memory }),
        8 => prop::bool::weighted(0.9).prop_map(|accepted| Step::Store { accepted }),
        1 => any::<u64>().prop_map(|random| Step::TakeOver { random }),
    ]
}

#[test]
fn whenever_a_status_is_written_it_says_what_is_known() {
    let visited = RefCell::new(BTreeSet::new());
    let runs = (any::<bool>(), prop_oneof![1_u32..4, 1_u32..40], vec(step(), 1..120));
    let result = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(1500) }).run(
        &runs,
        |(files, shards, steps)| {
            let mut spec = if files { copy() } else { noop(shards) };
            spec["parallelism"] = 3.into();
            spec["failurePolicy"] = serde_json::json!({"maxAttempts": 2});
            let mut desk = Desk::new(seen(spec), shards);
            for step in [Step::Store { accepted: true }].into_iter().chain(steps) {
                desk.step(step);
                for (now, core, status) in std::mem::take(&mut desk.written) {
                    visit(&mut desk, &core, &status);
                    is_read_back(&desk.seen, now, &core, &status);
                }
            }
            visited.borrow_mut().append(&mut desk.visited);
            Ok(())
        },
    );
    result.unwrap();
    for path in PATHS {
        assert!(visited.borrow().contains(path), "no run ever came to '{path}'");
    }
}

/// A successor on another machine, with another clock, and the same time of day.
fn is_read_back(seen: &Seen, now: Now, core: &Coordinator, written: &ShardJobStatus) {
    assert!(serde_json::to_vec(written).unwrap().len() <= STATUS_BYTES);
    let status = through_json(written);
    assert_eq!(&status, written, "JSON changes it");
    let seen = Seen { status, ..seen.clone() };
    let mut successor = take_over(&seen, Now { unix: now.unix, ..status::LATER }).unwrap();
    let notes = written.recovery.as_ref().unwrap();
    assert_eq!(i128::from(notes.term), i128::from(core.takeover().term));
    assert_eq!(successor.takeover().term, core.takeover().term + 1);
    assert!(core.shards().next() <= u32::try_from(notes.reserved_through).unwrap(), "granted beyond the reservation");
    if is_terminal(written, 1) {
        // Nothing is tried again, so what would be needed for that is not written.
        let (before, after) = (core.shards(), successor.shards());
        assert_eq!((after.done(), after.failed()), (before.done(), before.failed()));
        return;
    }
    same_knowledge(core.shards(), successor.shards());
    waits_as_long(core, now, &successor);
    let again = first_status(&mut successor, now.unix).unwrap();
    let notes_again = again.recovery.as_ref().unwrap();
    assert_eq!(again.plan, written.plan);
    assert_eq!(again.failures, written.failures, "a failure was forgotten");
    assert_eq!(again.start_time, written.start_time);
    assert_eq!(notes_again.frozen, notes.frozen);
    assert!(notes_again.reserved_through >= notes.reserved_through, "the reservation was taken back");
}

/// What was leased waits for a claim, for one lease; what waited does so as long as before, within a second.
fn waits_as_long(core: &Coordinator, now: Now, successor: &Coordinator) {
    for (index, waiting) in successor.shards().waiting() {
        let rest = waiting.until - status::LATER.millis;
        match core.shards().waiting().get(index) {
            None => assert!(waiting.unclaimed && rest == 10_000, "shard {index} is not kept for who has it"),
            Some(before) => {
                let rest_before = before.until.saturating_sub(now.millis);
                assert!(!waiting.unclaimed && (rest_before..rest_before + 1000).contains(&rest), "shard {index}");
            }
        }
    }
}

fn visit(desk: &mut Desk, core: &Coordinator, written: &ShardJobStatus) {
    let shards = core.shards();
    let leased = || shards.leased().values().map(|leased| leased.history);
    let waiting = || shards.waiting().values().map(|waiting| waiting.history);
    let at_the_end = |checkpoint: hyperflow_api::message::Checkpoint| checkpoint.position == u64::MAX;
    let paths = [
        (leased().chain(waiting()).any(|history| history.checkpoint.is_some_and(at_the_end)), PATHS[0]),
        (is_terminal(written, 1), PATHS[1]),
        (!shards.done().is_empty(), PATHS[2]),
        (!shards.failed().is_empty(), PATHS[3]),
        (waiting().any(|history| history.attempt() == 1), PATHS[4]),
        (!shards.limbo().is_empty(), PATHS[5]),
        (leased().next().is_some(), PATHS[6]),
        (leased().any(|history| history.failures > 0), PATHS[7]),
        (written.plan.as_ref().is_some_and(|plan| plan.files > 0), PATHS[8]),
        (leased().chain(waiting()).any(|history| history.suspect && history.kills > 0), PATHS[9]),
        (waiting().any(|history| history.checkpoint.is_some()), PATHS[11]),
    ];
    let visited: Vec<_> = paths.into_iter().filter(|(visited, _)| *visited).map(|(_, path)| path).collect();
    desk.visited.extend(visited);
}
