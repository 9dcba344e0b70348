//! The last command of a job, as a real process.

use hyperflow_core::worker::Stop;

use super::*;
use crate::finally;

fn job(command: &[&str], output: &str, path: Option<&str>) -> Volume {
    let mut volume = Volume::new(b"", "4Ki");
    volume.spec["source"] = json!({"items": {"values": ["a", "b"]}});
    volume.spec["task"] = json!({"exec": {
        "image": "registry.example/tool:1", "command": ["sh", "-c", "echo $HYPERFLOW_ITEM >$HYPERFLOW_OUTPUT"],
        "input": "None", "output": "File"
    }});
    volume.spec["finally"] = json!({"command": command, "output": output});
    if let Some(path) = path {
        volume.spec["finally"]["path"] = json!(path);
    }
    volume
}

fn script(text: &str, output: &str, path: Option<&str>) -> Volume {
    job(&["sh", "-c", text], output, path)
}

fn last(work: &Work, sequence: u64) -> Result<Outcome, Fault> {
    finally::run(work, &start(Target::Finally, sequence, None).attempt)
}

/// A worker that has published both shards.
fn done(volume: &Volume) -> Work {
    let work = volume.planned(1);
    for index in 0..2 {
        run(&work, index, 10 + u64::from(index), None).unwrap();
    }
    work
}

#[test]
fn the_command_reads_the_report_and_its_stdout_is_published_once() {
    let text = "wc -l; wc -l <$HYPERFLOW_REPORT; echo $HYPERFLOW_JOB $HYPERFLOW_RUN; touch $TMPDIR/x; echo once >>$0";
    let mut volume = script(text, "Stdout", Some("sum/{run}.txt"));
    let ran = volume.path("ran");
    volume.spec["finally"]["command"] = json!(["sh", "-c", text, ran.to_str().unwrap()]);
    let work = done(&volume);
    assert_eq!(last(&work, 20).unwrap(), Outcome::Finalized);
    assert_eq!(fs::read_to_string(volume.path("out/sum/1.txt")).unwrap(), "2\n2\ncopy 1\n");
    assert!(names(&volume.own("stage")).iter().all(|name| !name.starts_with("finally")), "nothing is left");
    // Whoever comes second finds it, also another worker, also when the final name was not given yet.
    fs::remove_file(volume.path("out/sum/1.txt")).unwrap();
    let other = volume.planned(2);
    assert_eq!(last(&other, 21).unwrap(), Outcome::Finalized);
    assert_eq!(fs::read_to_string(volume.path("out/sum/1.txt")).unwrap(), "2\n2\ncopy 1\n");
    assert_eq!(fs::read_to_string(ran).unwrap(), "once\n");
    assert!(sweep(&work).unwrap().is_some(), "the report is there for the sweep");
}

#[test]
fn the_file_that_the_command_makes_is_published() {
    let volume = script("cat >$HYPERFLOW_OUTPUT; echo to the log", "File", Some("report-{run}"));
    last(&done(&volume), 20).unwrap();
    let report = fs::read_to_string(volume.own("report.jsonl")).unwrap();
    assert_eq!(fs::read_to_string(volume.path("out/report-1")).unwrap(), report);
    assert!(names(&volume.own("")).contains(&"finally-1".into()));
}

#[test]
fn without_a_result_the_command_only_runs() {
    let volume = script("exit 0", "None", None);
    assert_eq!(last(&done(&volume), 20).unwrap(), Outcome::Finalized);
    assert!(!volume.own("finally-1").exists());
}

#[test]
fn a_command_that_fails_publishes_nothing_and_the_next_may() {
    let mut volume = Volume::new(b"", "4Ki");
    for (text, output, reason) in [
        ("echo half; echo why >&2; exit 3", "Stdout", "ExitCode"),
        ("exit 0", "File", "NoOutput"),
        ("mkdir $HYPERFLOW_OUTPUT", "File", "BadOutput"),
        ("kill -9 $$$$", "Stdout", "Signal"),
    ] {
        volume = script(text, output, Some("sum"));
        let failure = refused(last(&done(&volume), 20));
        assert_eq!((failure.reason.as_str(), failure.ends_job), (reason, false), "{text}");
        assert!(!volume.own("finally-1").exists());
        assert!(names(&volume.own("stage")).iter().all(|name| !name.starts_with("finally")), "{text}");
        assert!(!volume.path("out/sum").exists());
    }
    drop(volume);
    let missing = job(&["/no/such"], "Stdout", Some("sum"));
    let failure = refused(last(&done(&missing), 20));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("ProgramNotFound", true));
}

#[test]
fn a_command_that_takes_too_long_or_is_fenced_is_ended() {
    let mut volume = script("sleep 600", "Stdout", Some("sum"));
    volume.spec["failurePolicy"] = json!({"attemptDeadlineSeconds": 1});
    let work = done(&volume);
    assert_eq!(refused(last(&work, 20)).class, FailureClass::Timeout);
    let started = start(Target::Finally, 21, None);
    started.stop.order(Stop::Now);
    assert!(matches!(finally::run(&work, &started.attempt), Err(Fault::Stopped)));
    assert!(!volume.own("finally-1").exists());
}

#[test]
fn what_is_not_ours_is_never_overwritten() {
    let volume = script("echo ours", "Stdout", Some("sum"));
    let work = done(&volume);
    fs::write(volume.path("out/sum"), "theirs").unwrap();
    let failure = refused(last(&work, 20));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutputExists", true));
    assert_eq!(fs::read_to_string(volume.path("out/sum")).unwrap(), "theirs");
    // Before there is a plan, it is seen sooner.
    let early = script("echo ours", "Stdout", Some("sum"));
    fs::create_dir(early.path("out")).unwrap();
    fs::write(early.path("out/sum"), "theirs").unwrap();
    assert_eq!(refused(plan(&early.work(1))).reason, "OutputExists");
}

#[test]
fn a_name_that_a_shard_has_is_refused_before_anything_is_done() {
    for taken in ["part-000001", "part-000001/sum"] {
        let refusal = refused(plan(&script("exit 0", "Stdout", Some(taken)).work(1)));
        assert_eq!(refusal.reason, "OutputNameCollision");
        let both = format!("shard 1, 'part-000001', and that of `spec.finally`, '{taken}'");
        assert!(refusal.message.contains(&both), "{}", refusal.message);
    }
    plan(&script("exit 0", "Stdout", Some("part-000002")).work(1)).unwrap();
}

#[test]
fn an_attempt_that_wakes_after_the_sweep_finds_the_result() {
    let volume = script("echo sum", "Stdout", Some("sum"));
    let work = done(&volume);
    last(&work, 20).unwrap();
    sweep(&work).unwrap();
    assert_eq!(last(&volume.planned(2), 21).unwrap(), Outcome::Finalized);
}

#[test]
fn who_takes_results_over_is_told_at_once_that_the_last_one_is_in_the_way() {
    let mut volume = script("echo sum", "Stdout", Some("sum"));
    last(&done(&volume), 20).unwrap();
    let gone = Some(hyperflow_core::claim::digest(&JobUid(volume.uid.into())));
    volume.uid = "00000000-0000-4000-8000-000000000002";
    volume.spec["output"]["existing"] = json!("Reuse");
    let heir = volume.work(2);
    assert_eq!(refused(tasks::plan_as_heir(&heir, gone)).reason, "OutputExists");
    fs::rename(volume.path("out/sum"), volume.path("sum-of-before")).unwrap();
    let Ok(Outcome::Planned(planned)) = tasks::plan_as_heir(&heir, gone) else { panic!("no plan") };
    heir.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    assert!((0..2).all(|index| run(&heir, index, 30 + u64::from(index), None).unwrap().found));
    last(&heir, 40).unwrap();
    assert_eq!(fs::read_to_string(volume.path("out/sum")).unwrap(), "sum\n");
}
