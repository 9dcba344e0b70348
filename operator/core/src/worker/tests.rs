//! When results are told: at once where a slot could wait for the answer, together where none does.

use hyperflow_api::{
    ids::{Epoch, Takeover},
    message::{FailureClass, News, Target},
};

use super::*;

struct Process {
    core: Worker,
    started: Vec<RunId>,
}

impl Process {
    /// Two slots, welcomed at 0.
    fn new() -> Self {
        let id = WorkerId { pod_uid: "a".into(), nonce: 1 };
        let mut process = Self { core: Worker::new(at(0), JobUid("job".into()), id, 2), started: Vec::new() };
        process.hears(0, Event::Connected);
        let takeover = Takeover { term: 1, random: 1 };
        let welcome = Welcome { takeover, job: String::new(), lease_millis: 10_000, orphan_seconds: 600 };
        process.hears(0, Event::Heard(FromOperator::Welcome(welcome)));
        process
    }

    /// What it says then, and who begins.
    fn hears(&mut self, millis: u64, event: Event) -> Vec<Report> {
        let mut said = Vec::new();
        for event in [event, Event::Flush] {
            for effect in self.core.handle(at(millis), event) {
                match effect {
                    Effect::Send(FromWorker::Report(report)) => said.push(report),
                    Effect::Start(assignment) => self.started.push(assignment.run),
                    _ => {}
                }
            }
        }
        assert!(self.core.next_wake() > millis);
        said
    }

    fn granted(&mut self, millis: u64, shards: std::ops::Range<u32>) -> Vec<Report> {
        let grant = |index| Grant {
            target: Target::Shard(index),
            epoch: Epoch { takeover: Takeover { term: 1, random: 1 }, sequence: index.into() },
            attempt: 1,
            replaces: None,
            probe: false,
            resume: None,
            heir_of: None,
        };
        let orders = Orders { grants: shards.map(grant).collect(), ..Orders::default() };
        self.hears(millis, Event::Heard(FromOperator::Orders(orders)))
    }

    fn ends(&mut self, millis: u64, outcome: Outcome) -> Vec<Report> {
        let run = self.started.remove(0);
        self.hears(millis, Event::Ended { run, outcome })
    }
}

fn at(millis: u64) -> Now {
    Now { millis, unix: 0 }
}

fn published() -> Outcome {
    Outcome::Published(Published { bytes: 0, crc32c: 0, found: false })
}

/// Attempts have taken 2 ms each, so that 50 are wanted ahead; so many are there.
fn with_ahead(shards: u32) -> Process {
    let mut process = Process::new();
    process.granted(0, 0..2);
    assert_eq!(process.ends(2, published()).len(), 1, "no work is left: the slot must not wait");
    assert_eq!(process.ends(2, published()).len(), 1);
    process.granted(2, 2..2 + shards);
    process
}

#[test]
fn results_are_told_together_while_there_is_enough_to_do() {
    let mut process = with_ahead(40);
    assert!(process.ends(4, published()).is_empty());
    assert_eq!(process.core.next_wake(), 14);
    assert!(process.ends(6, published()).is_empty());
    let said = process.hears(14, Event::Flush);
    let [report] = &said[..] else { panic!("{said:?}") };
    assert_eq!((report.first_number, report.facts.len()), (3, 2));
    assert!(process.ends(15, published()).is_empty(), "the next ones are gathered anew");
    assert_eq!(process.core.next_wake(), 25);
}

#[test]
fn results_are_told_at_once_where_work_runs_short() {
    let mut process = with_ahead(20);
    assert_eq!(process.ends(4, published()).len(), 1);
    let mut process = with_ahead(29);
    let told = (0..4).map(|_| process.ends(4, published()).len()).collect::<Vec<_>>();
    assert_eq!(told, [0, 0, 1, 1], "half of what is wanted is there at first");
}

#[test]
fn what_is_no_result_takes_all_with_it() {
    let mut process = with_ahead(40);
    assert!(process.ends(4, published()).is_empty());
    let failure = Failure {
        class: FailureClass::Application,
        reason: "ExitCode".into(),
        message: String::new(),
        ends_job: false,
        checkpoint_unusable: false,
        exit_code: Some(1),
    };
    let said = process.ends(5, Outcome::Failed(failure));
    assert_eq!(said.iter().map(|report| report.facts.len()).sum::<usize>(), 2);
    assert!(matches!(said[0].facts[1].news, News::Failed(_)));
    assert!(process.ends(6, published()).is_empty());
    assert_eq!(process.hears(7, Event::Terminate)[0].facts[0].target, Target::Shard(4));
}

#[test]
fn some_wait_in_line_where_attempts_are_short() {
    let mut process = with_ahead(40);
    assert_eq!((process.started.len(), process.core.may_rest()), (12, 2), "two run, and ten are in line");
    process.ends(4, published());
    assert_eq!(process.started.len(), 12);
    // What waits in line is stopped as what runs, and keeps its place until it says so.
    let (target, epoch) = (Target::Shard(4), Epoch { takeover: Takeover { term: 1, random: 1 }, sequence: 4 });
    let revoked = vec![Revoked { target, epoch }];
    let orders = FromOperator::Orders(Orders { revoked, ..Orders::default() });
    let effects = process.core.handle(at(4), Event::Heard(orders));
    assert!(matches!(effects[..], [Effect::Stop { how: Stop::Now, .. }]), "{effects:?}");
}

#[test]
fn nothing_waits_in_line_where_attempts_are_long() {
    let mut process = Process::new();
    process.granted(0, 0..2);
    process.ends(30, published());
    process.ends(30, published());
    process.granted(30, 2..6);
    assert_eq!(process.started.len(), 2);
    // Time in line is not the attempt's.
    let mut process = with_ahead(40);
    let begun = |process: &Process| process.core.runs.prefetch(2, PREFETCH_MILLIS, PREFETCH_MOST);
    for millis in (4..44).step_by(2) {
        process.ends(millis, published());
        process.ends(millis, published());
    }
    assert_eq!(begun(&process), 50, "each took two milliseconds once it had a slot");
}

#[test]
fn who_is_in_session_is_no_orphan_however_little_there_is_to_say() {
    let mut process = Process::new();
    process.granted(0, 0..2);
    let ends = |process: &mut Process, millis| {
        let effects = process.core.handle(at(millis), Event::Flush);
        effects.iter().any(|effect| matches!(effect, Effect::Stop { .. } | Effect::Exit(_)))
    };
    let alone = (1..1000).find(|second| ends(&mut process, second * 1000));
    assert_eq!(alone, None, "a shard may take longer than a worker goes on alone");
    process.hears(1_000_000, Event::Disconnected);
    assert!(!ends(&mut process, 1_599_999) && ends(&mut process, 1_600_000));
}
