//! Shards are copied once, resumed where they were, and never spoilt by who comes late.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    sync::Barrier,
    thread,
};

use hyperflow_api::message::{Checkpoint, FailureClass, Target};
use hyperflow_core::worker::{Event, Stop};
use serde_json::json;

use super::{MIB, Started, Volume, names, noise, refused, run, start, sweep};
use crate::{fault::Fault, shard, work::Work};

/// Runs shard 0 until it has so many checkpoints, then orders a stop; returns the last checkpoint.
fn interrupt(work: &Work, sequence: u64, checkpoints: usize, how: Stop, resume: Option<Checkpoint>) -> Checkpoint {
    let Started { attempt, stop, mut reports } = start(Target::Shard(0), sequence, resume);
    let mut last = None;
    thread::scope(|scope| {
        let copy = scope.spawn(move || shard::run(work, &attempt, 0));
        let mut seen = 0;
        while let Some(event) = reports.blocking_recv() {
            if let Event::Checkpointed { checkpoint, .. } = event {
                last = Some(checkpoint);
                seen += 1;
                if seen == checkpoints {
                    stop.order(how);
                }
            }
        }
        assert!(matches!(copy.join().unwrap(), Err(Fault::Stopped)));
    });
    last.unwrap()
}

#[test]
fn every_shard_is_published_under_its_name_with_a_record() {
    let input = noise(10_000);
    let volume = Volume::new(&input, "4Ki");
    let work = volume.planned(1);
    let published: Vec<_> = (0..3).map(|index| run(&work, index, 10 + u64::from(index), None).unwrap()).collect();
    assert_eq!(names(&volume.path("out")), ["_hyperflow", "part-000000", "part-000001", "part-000002"]);
    let output: Vec<u8> =
        (0..3).flat_map(|index| fs::read(volume.path(&format!("out/part-00000{index}"))).unwrap()).collect();
    assert!(output == input, "the parts one after the other are the input");
    assert_eq!(published.iter().map(|result| result.bytes).collect::<Vec<_>>(), [4096, 4096, 1808]);
    assert!(published.iter().all(|result| !result.found));
    let records = volume.records();
    assert_eq!(records.len(), 3);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["index"], json!(index));
        assert_eq!(record["crc32c"], json!(format!("{:08x}", published[index].crc32c)));
        assert_eq!(
            (&record["resumedFrom"], &record["bytesReadAgain"], &record["found"]),
            (&json!(0), &json!(0), &json!(false))
        );
    }
}

#[test]
fn of_two_attempts_at_a_shard_one_publishes_and_both_report_the_same() {
    let volume = Volume::new(&noise(300_000), "512Ki");
    for round in 0..20 {
        let works = [volume.planned(1), volume.planned(2)];
        let barrier = Barrier::new(2);
        let results = thread::scope(|scope| {
            let racers = works.each_ref().map(|work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    run(work, 0, 10 + round, None).unwrap()
                })
            });
            racers.map(|racer| racer.join().unwrap())
        });
        assert_eq!(results.iter().filter(|result| !result.found).count(), 1, "{results:?}");
        assert_eq!((results[0].bytes, results[0].crc32c), (results[1].bytes, results[1].crc32c));
        fs::remove_dir_all(volume.path("out")).unwrap();
    }
}

#[test]
fn a_foreign_file_is_never_overwritten() {
    let volume = Volume::new(&noise(5000), "4Ki");
    let work = volume.planned(1);
    fs::write(volume.path("out/part-000001"), b"mine").unwrap();
    let failure = refused(run(&work, 1, 10, None));
    assert_eq!((failure.class, failure.reason.as_str(), failure.ends_job), (FailureClass::Store, "OutputExists", true));
    assert!(
        failure.message.contains("out/part-000001' exists and was not written by Hyperflow"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read(volume.path("out/part-000001")).unwrap(), b"mine");
}

#[test]
fn who_finds_a_commit_gives_it_its_name_if_its_author_could_not() {
    let input = noise(4096);
    let volume = Volume::new(&input, "4Ki");
    let work = volume.planned(1);
    let first = run(&work, 0, 10, None).unwrap();
    fs::remove_file(volume.path("out/part-000000")).unwrap();
    let second = run(&volume.planned(2), 0, 11, None).unwrap();
    assert!(second.found && second.crc32c == first.crc32c);
    assert_eq!(fs::read(volume.path("out/part-000000")).unwrap(), input);
}

#[test]
fn a_resumed_copy_reads_only_the_rest_and_ignores_what_a_zombie_still_writes() {
    let input = noise(8 * MIB);
    let volume = Volume::new(&input, "8Mi").slow();
    let checkpoint = interrupt(&volume.planned(1), 10, 2, Stop::AfterCheckpoint, None);
    assert!((2 * MIB as u64..8 * MIB as u64).contains(&checkpoint.position));
    // The first attempt is thought dead and is not.
    let folder = volume.own("stage/0");
    let [old] = &names(&folder)[..] else { panic!("one segment") };
    OpenOptions::new().append(true).open(folder.join(old)).unwrap().write_all(&[0xee; 12_345]).unwrap();

    let published = run(&volume.planned(2), 0, 11, Some(checkpoint)).unwrap();
    assert_eq!((published.bytes, published.found), (8 * MIB as u64, false));
    assert!(fs::read(volume.path("out/part-000000")).unwrap() == input, "byte for byte");
    let records = volume.records();
    let [record] = &records[..] else { panic!("one record") };
    assert_eq!(record["resumedFrom"], json!(checkpoint.position));
    assert_eq!(record["bytesRead"], json!(8 * MIB as u64 - checkpoint.position));
    assert_eq!(record["bytesReadAgain"], json!(12_345));
}

#[test]
fn a_copy_is_resumed_over_and_over() {
    let input = noise(8 * MIB);
    let volume = Volume::new(&input, "8Mi").slow();
    let mut resume = None;
    for sequence in 10..13 {
        let checkpoint = interrupt(&volume.planned(sequence), sequence, 1, Stop::AfterCheckpoint, resume);
        assert!(
            resume
                .is_none_or(|last: Checkpoint| last.position < checkpoint.position && last.number < checkpoint.number)
        );
        resume = Some(checkpoint);
    }
    run(&volume.planned(99), 0, 99, resume).unwrap();
    assert!(fs::read(volume.path("out/part-000000")).unwrap() == input, "byte for byte");
}

#[test]
fn a_damaged_segment_is_not_published_and_its_checkpoint_not_used_again() {
    let input = noise(4 * MIB);
    let volume = Volume::new(&input, "4Mi").slow();
    let checkpoint = interrupt(&volume.planned(1), 10, 1, Stop::AfterCheckpoint, None);
    let folder = volume.own("stage/0");
    let segment = folder.join(&names(&folder)[0]);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[77] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let failure = refused(run(&volume.planned(2), 0, 11, Some(checkpoint)));
    assert_eq!(failure.reason, "CheckpointDamaged");
    assert!(failure.checkpoint_unusable && !failure.ends_job);
    assert!(!volume.path("out/part-000000").exists());
}

#[test]
fn a_checkpoint_that_is_gone_means_from_zero() {
    let input = noise(4 * MIB);
    let volume = Volume::new(&input, "4Mi").slow();
    let checkpoint = interrupt(&volume.planned(1), 10, 1, Stop::AfterCheckpoint, None);
    fs::remove_dir_all(volume.own("ckpt/0")).unwrap();
    assert!(!run(&volume.planned(2), 0, 11, Some(checkpoint)).unwrap().found);
    assert!(fs::read(volume.path("out/part-000000")).unwrap() == input, "byte for byte");
    let record = &volume.records()[0];
    assert_eq!((&record["resumedFrom"], &record["bytesReadAgain"]), (&json!(0), &json!(checkpoint.position)));
}

#[test]
fn a_fenced_attempt_publishes_nothing() {
    let volume = Volume::new(&noise(8 * MIB), "8Mi").slow();
    interrupt(&volume.planned(1), 10, 1, Stop::Now, None);
    assert!(!volume.path("out/part-000000").exists());
    assert!(names(&volume.own("pub")).is_empty());
}

#[test]
fn input_that_changes_is_noticed_before_and_while_it_is_read() {
    let volume = Volume::new(&noise(8 * MIB), "8Mi").slow();
    let work = volume.planned(1);
    let Started { attempt, mut reports, .. } = start(Target::Shard(0), 10, None);
    thread::scope(|scope| {
        let work = &work;
        let copy = scope.spawn(move || shard::run(work, &attempt, 0));
        while !matches!(reports.blocking_recv(), Some(Event::Checkpointed { .. })) {}
        OpenOptions::new().write(true).open(volume.path("in/data")).unwrap().set_len(100).unwrap();
        let failure = refused(copy.join().unwrap());
        assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::BadInput, "InputChanged"));
        assert!(
            failure.ends_job && failure.message.contains("had 8388608 bytes and has 100 now"),
            "{}",
            failure.message
        );
    });
    assert_eq!(refused(run(&work, 0, 11, None)).reason, "InputChanged");
    fs::remove_file(volume.path("in/data")).unwrap();
    assert_eq!(refused(run(&work, 0, 12, None)).reason, "NoInput");
    assert!(!volume.path("out/part-000000").exists());
}

#[test]
fn a_change_that_keeps_the_size_is_noticed() {
    let volume = Volume::new(&noise(5000), "8Ki");
    let work = volume.planned(1);
    fs::write(volume.path("in/data"), vec![1; 5000]).unwrap();
    assert_eq!(refused(run(&work, 0, 10, None)).reason, "InputChanged");
}

#[test]
fn after_the_sweep_results_and_records_stay_and_a_late_attempt_finds_them() {
    let volume = Volume::new(&noise(5000), "4Ki");
    let work = volume.planned(1);
    for index in 0..2 {
        run(&work, index, 10 + u64::from(index), None).unwrap();
    }
    let report = sweep(&work).unwrap().unwrap();
    assert_eq!(sweep(&work).unwrap().unwrap(), report, "it is made once");
    assert_eq!(names(&volume.own("")), ["plan", "pub", "records", "report.jsonl"]);
    assert_eq!(names(&volume.path("out")), ["_hyperflow", "part-000000", "part-000001"]);
    assert!(run(&volume.planned(2), 1, 20, None).unwrap().found);
}

#[test]
fn after_a_sweep_nothing_is_made_again_and_what_was_not_committed_fails() {
    let volume = Volume::new(&noise(8 * MIB), "8Mi").slow();
    let work = volume.planned(1);
    let checkpoint = interrupt(&work, 10, 1, Stop::AfterCheckpoint, None);
    let Started { attempt, mut reports, .. } = start(Target::Shard(0), 11, None);
    thread::scope(|scope| {
        let work = &work;
        let copy = scope.spawn(move || shard::run(work, &attempt, 0));
        while !matches!(reports.blocking_recv(), Some(Event::Checkpointed { .. })) {}
        sweep(work).unwrap();
        assert_eq!(refused(copy.join().unwrap()).reason, "OutputFailed", "it was under way");
    });
    for resume in [None, Some(checkpoint)] {
        let failure = refused(run(&volume.planned(2), 0, 12, resume));
        assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutputFailed", false), "it came late");
    }
    assert_eq!(names(&volume.own("")), ["failed.txt", "plan", "pub", "records", "report.jsonl"]);
    assert!(names(&volume.own("pub")).is_empty() && names(&volume.own("records")).is_empty());
    assert_eq!(names(&volume.path("out")), ["_hyperflow"]);
    // Not even where somebody has removed all of the job.
    fs::remove_dir_all(volume.own("")).unwrap();
    assert!(run(&work, 0, 13, None).is_err());
    assert!(!volume.own("").exists());
}

#[test]
fn who_is_swept_away_while_copying_finds_the_commit_of_another() {
    let volume = Volume::new(&noise(8 * MIB), "8Mi");
    let slow = Volume { spec: volume.spec.clone(), ..Volume::new(&[], "8Mi") }.slow();
    let zombie = {
        let fast = volume.planned(1);
        let mut brief = volume.brief();
        brief.spec = serde_json::from_value(slow.spec).unwrap();
        let work =
            Work::new(brief, fast.worker.clone(), "node-a".into(), Default::default(), Default::default()).unwrap();
        work.use_plan(
            super::plan(&work)
                .map(|plan| hyperflow_api::message::PlanRef { shards: plan.shards, digest: plan.digest })
                .unwrap(),
        );
        work
    };
    let Started { attempt, mut reports, .. } = start(Target::Shard(0), 10, None);
    let found = thread::scope(|scope| {
        let zombie = &zombie;
        let copy = scope.spawn(move || shard::run(zombie, &attempt, 0));
        while !matches!(reports.blocking_recv(), Some(Event::Checkpointed { .. })) {}
        let winner = volume.planned(2);
        assert!(!run(&winner, 0, 11, None).unwrap().found);
        sweep(&winner).unwrap();
        copy.join().unwrap().unwrap()
    });
    assert!(found.found);
}

#[test]
fn input_that_leads_out_of_the_volume_is_refused() {
    let volume = Volume::new(&noise(100), "4Ki");
    fs::remove_file(volume.path("in/data")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", volume.path("in/data")).unwrap();
    let failure = refused(super::plan(&volume.work(1)));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutsideVolumes", true));
    assert!(failure.message.contains("in/data' leads to '/etc/hostname'"), "{}", failure.message);
    fs::rename(volume.path("in/data"), volume.path("in/gone")).unwrap();
    fs::write(volume.path("in/real"), noise(100)).unwrap();
    std::os::unix::fs::symlink("real", volume.path("in/data")).unwrap();
    assert!(super::plan(&volume.work(1)).is_ok(), "a link inside the volume is fine");
}
