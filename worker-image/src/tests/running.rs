//! Every start is answered by one end.

use std::sync::Arc;

use hyperflow_api::{
    ids::{JobUid, Takeover, WorkerId},
    message::{Grant, PlanRef, Target, Welcome},
};
use hyperflow_core::{
    job::Brief,
    worker::{Assignment, Event, Outcome, RunId, Stop},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Volume, epoch, noise};
use crate::runner::Runner;

pub fn welcome(brief: &Brief) -> Welcome {
    let takeover = Takeover { term: 1, random: 1 };
    Welcome { takeover, job: serde_json::to_string(brief).unwrap(), lease_millis: 10_000, orphan_seconds: 600 }
}

pub fn noop() -> Brief {
    let spec = json!({"source": {"numbers": {"count": 100_000}}, "task": {"noop": {}}});
    let uid = JobUid("7d1e0c44-0000-4000-8000-000000000003".into());
    Brief { uid, namespace: "default".into(), name: "noop".into(), run: 1, spec: serde_json::from_value(spec).unwrap() }
}

pub fn runner() -> (Runner, mpsc::Receiver<Event>) {
    let (sender, reports) = mpsc::channel(1024);
    let worker = WorkerId { pod_uid: "0d1f3c2a-0000-4000-8000-000000000000".into(), nonce: 1 };
    (Runner::new(worker, "node-a".into(), 2, Arc::default(), sender), reports)
}

fn assignment(run: u64, target: Target) -> Assignment {
    let grant =
        Grant { target, epoch: epoch(run), attempt: 1, replaces: None, probe: true, resume: None, heir_of: None };
    Assignment { run: RunId(run), grant }
}

fn end(event: Option<Event>) -> (RunId, Outcome) {
    match event {
        Some(Event::Ended { run, outcome }) => (run, outcome),
        other => panic!("{other:?}"),
    }
}

/// How an attempt ended that was told to stop: at once, if it had not begun yet.
fn stopped(runner: &Runner, reports: &mut mpsc::Receiver<Event>, run: RunId) -> (RunId, Outcome) {
    let heard = || std::iter::from_fn(|| reports.blocking_recv()).find(|event| matches!(event, Event::Ended { .. }));
    end(runner.stop(run, Stop::Now).or_else(heard))
}

#[test]
fn a_noop_is_over_at_once() {
    let (mut runner, _reports) = runner();
    runner.configure(&welcome(&noop()));
    let began = std::time::Instant::now();
    for run in 0..100_000 {
        let (ended, outcome) = end(runner.start(assignment(run, Target::Shard(7))));
        assert!(ended == RunId(run) && matches!(outcome, Outcome::Published(_)));
    }
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
}

#[test]
fn plan_shards_and_sweep_run_in_threads_and_each_ends_once() {
    let input = noise(9000);
    let volume = Volume::new(&input, "4Ki");
    let (mut runner, mut reports) = runner();
    runner.configure(&welcome(&volume.brief()));
    assert_eq!(runner.start(assignment(1, Target::Plan)), None);
    let (run, Outcome::Planned(planned)) = end(reports.blocking_recv()) else { panic!("no plan") };
    assert_eq!((run, planned.shards), (RunId(1), 3));
    runner.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    for index in 0..3 {
        assert_eq!(runner.start(assignment(10 + u64::from(index), Target::Shard(index))), None);
    }
    for _ in 0..3 {
        let (run, outcome) = end(reports.blocking_recv());
        assert!(matches!(outcome, Outcome::Published(_)), "{outcome:?}");
        runner.ended(run);
    }
    runner.clean(0);
    runner.start(assignment(20, Target::Sweep));
    let (run, Outcome::Swept(Some(report))) = end(reports.blocking_recv()) else { panic!("no report") };
    assert!(run == RunId(20) && report.url.ends_with("/report.jsonl"), "{report:?}");
    assert_eq!(super::names(&volume.own("")), ["plan", "pub", "records", "report.jsonl"]);
}

#[test]
fn what_cannot_be_begun_ends_in_a_failure_that_says_why() {
    let (mut runner, mut reports) = runner();
    let failed = |event| match end(event).1 {
        Outcome::Failed(failure) => failure.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(runner.start(assignment(1, Target::Plan))), "NotConfigured");
    runner.configure(&Welcome { job: "{}".into(), ..welcome(&noop()) });
    assert_eq!(failed(runner.start(assignment(2, Target::Plan))), "InvalidSpec");
    let volume = Volume::new(&noise(9000), "4Ki");
    runner.configure(&welcome(&volume.brief()));
    assert_eq!(runner.start(assignment(3, Target::Shard(0))), None);
    assert_eq!(failed(reports.blocking_recv()), "OutputFailed", "nobody has made the output directory");
}

#[test]
fn a_stopped_attempt_ends_as_stopped() {
    let volume = Volume::new(&noise(8 << 20), "8Mi").slow();
    let work = volume.planned(9);
    drop(work);
    let (mut runner, mut reports) = runner();
    runner.configure(&welcome(&volume.brief()));
    let planned = super::plan(&volume.work(8)).unwrap();
    runner.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    runner.start(assignment(1, Target::Shard(0)));
    assert_eq!(stopped(&runner, &mut reports, RunId(1)), (RunId(1), Outcome::Stopped));
}

#[test]
fn an_attempt_that_is_stopped_in_line_does_not_begin() {
    let volume = Volume::new(&noise(24 << 20), "8Mi").slow();
    let (mut runner, mut reports) = runner();
    runner.configure(&welcome(&volume.brief()));
    let planned = super::plan(&volume.work(8)).unwrap();
    runner.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    for index in 0..3 {
        assert_eq!(runner.start(assignment(u64::from(index) + 1, Target::Shard(index))), None);
    }
    assert_eq!(end(runner.stop(RunId(3), Stop::AfterCheckpoint)), (RunId(3), Outcome::Stopped), "at once");
    for run in [RunId(1), RunId(2)] {
        assert_eq!(stopped(&runner, &mut reports, run), (run, Outcome::Stopped));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(reports.try_recv().is_err(), "an attempt ends once");
}

#[test]
fn why_an_attempt_failed_is_recorded_and_stands_in_the_report() {
    let volume = Volume::new(&noise(9000), "4Ki");
    let (mut runner, mut reports) = runner();
    runner.configure(&welcome(&volume.brief()));
    runner.start(assignment(1, Target::Plan));
    let (_, Outcome::Planned(planned)) = end(reports.blocking_recv()) else { panic!("no plan") };
    runner.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    std::fs::write(volume.path("in/data"), noise(8999)).unwrap();
    for run in [10, 11] {
        runner.start(assignment(run, Target::Shard(2)));
        let (_, Outcome::Failed(failure)) = end(reports.blocking_recv()) else { panic!("no failure") };
        assert_eq!(failure.reason, "InputChanged");
    }
    let records = volume.records();
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["index"], &records[0]["class"]), (&json!(2), &json!("BadInput")));
    runner.start(assignment(20, Target::Sweep));
    let (_, Outcome::Swept(Some(_))) = end(reports.blocking_recv()) else { panic!("no report") };
    let report = std::fs::read_to_string(volume.own("report.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(report.lines().last().unwrap()).unwrap();
    assert_eq!((&line["published"], &line["reason"]), (&json!(false), &json!("InputChanged")));
    assert!(line["message"].as_str().unwrap().contains("in/data"), "{line}");
    assert_eq!((&line["attempts"], &line["node"]), (&json!(1), &json!("node-a")));
}
