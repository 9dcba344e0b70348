//! Whole files, lines, copies, checksums, and results that are used again.

use std::{os::unix::fs::MetadataExt, process::Command};

use hyperflow_core::claim;
use hyperflow_core::worker::Stop;

use super::*;

/// A volume with a tree of files on it.
fn tree(files: &[(&str, &[u8])]) -> Volume {
    let mut volume = Volume::new(b"", "4Ki");
    fs::remove_file(volume.path("in/data")).unwrap();
    for (path, bytes) in files {
        let path = volume.path("in").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let url = format!("file://{}/", volume.path("in").display());
    volume.spec["source"]["files"] = json!({"url": url, "boundary": "File"});
    volume.spec["output"]["path"] = json!("{dir}{name}");
    volume
}

/// Plans and runs every shard, one after the other.
fn run_all(volume: &Volume, nonce: u64) -> Work {
    let work = volume.work(nonce);
    let Planned { shards, digest, .. } = plan(&work).unwrap();
    work.use_plan(PlanRef { shards, digest });
    for index in 0..shards {
        run(&work, index, 100 + u64::from(index), None).unwrap();
    }
    work
}

/// Plans as an operator has it done that says who is gone.
pub fn plan_as_heir(work: &Work, heir_of: Option<u64>) -> Result<Outcome, Fault> {
    let Started { attempt, stop, .. } = start(Target::Plan, 1, None);
    let grant = Grant { heir_of, ..*attempt.grant() };
    planner::run(work, &Attempt::new(Assignment { run: RunId(1), grant }, stop, mpsc::channel(64).0))
}

/// Runs shard 0 until its first checkpoint; returns it.
fn first_checkpoint(work: &Work) -> Checkpoint {
    let Started { attempt, stop, mut reports } = start(Target::Shard(0), 10, None);
    std::thread::scope(|scope| {
        let running = scope.spawn(move || shard::run(work, &attempt, 0));
        let mut last = None;
        while let Some(event) = reports.blocking_recv() {
            if let Event::Checkpointed { checkpoint, .. } = event {
                last.get_or_insert(checkpoint);
                stop.order(Stop::Now);
            }
        }
        assert!(matches!(running.join().unwrap(), Err(Fault::Stopped)));
        last.unwrap()
    })
}

#[test]
fn a_tree_is_copied_under_its_names() {
    let files: [(&str, &[u8]); 5] =
        [("a/b c.txt", b"one"), ("a/x#1", b"two"), ("empty", b""), ("é\n\"'", b"three"), ("skip.log", b"no")];
    let mut volume = tree(&files);
    volume.spec["source"]["files"]["exclude"] = json!(["**/*.log"]);
    let work = run_all(&volume, 1);
    for (path, bytes) in &files[..4] {
        assert_eq!(fs::read(volume.path("out").join(path)).unwrap(), *bytes, "{path}");
    }
    assert!(!volume.path("out/skip.log").exists());
    let report = sweep(&work).unwrap().unwrap();
    let lines = fs::read_to_string(volume.own("report.jsonl")).unwrap();
    assert_eq!(report.digest, hyperflow_core::plan::digest(lines.as_bytes()));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["published"]), (4, &json!(true)));
    assert!(lines[0]["outputs"][0]["url"].as_str().unwrap().ends_with("/out/a/b c.txt"));
}

#[test]
fn files_of_one_shard_are_one_after_the_other_in_its_result() {
    let mut volume = tree(&[("a", b"1"), ("b", b""), ("c", b"23"), ("d", b"4")]);
    volume.spec["source"]["files"]["filesPerShard"] = json!(3);
    volume.spec["output"]["path"] = json!("part-{index}");
    run_all(&volume, 1);
    assert_eq!(fs::read(volume.path("out/part-000000")).unwrap(), b"123");
    assert_eq!(fs::read(volume.path("out/part-000001")).unwrap(), b"4");
}

#[test]
fn lines_stay_whole() {
    let mut volume = Volume::new(&b"some words\r\n".repeat(1000), "4Ki");
    volume.spec["source"]["files"]["boundary"] = json!("Line");
    run_all(&volume, 1);
    let parts: Vec<Vec<u8>> = names(&volume.path("out"))
        .iter()
        .filter(|name| name.starts_with("part"))
        .map(|name| fs::read(volume.path("out").join(name)).unwrap())
        .collect();
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().all(|part| part.starts_with(b"some") && part.ends_with(b"\r\n")));
    assert_eq!(parts.concat(), fs::read(volume.path("in/data")).unwrap());
}

#[test]
fn three_copies_are_published_as_one_and_survive_a_stop() {
    let mut volume = Volume::new(&noise(5 * MIB), "8Mi");
    volume.spec["task"] = json!({"copy": {"copies": 3}});
    volume.spec["output"]["path"] = json!("copy-{copy}/part-{index}");
    let checkpoint = first_checkpoint(&volume.planned(1));
    assert!(names(&volume.path("out")).iter().all(|name| name == "_hyperflow"), "nothing is visible yet");
    let work = volume.planned(2);
    assert!(!run(&work, 0, 20, Some(checkpoint)).unwrap().found);
    let input = fs::read(volume.path("in/data")).unwrap();
    let copies: Vec<PathBuf> = (1..=3).map(|copy| volume.path(&format!("out/copy-{copy}/part-000000"))).collect();
    assert!(copies.iter().all(|copy| fs::read(copy).unwrap() == input));
    let inode = |path: &PathBuf| fs::metadata(path).unwrap().ino();
    assert!(inode(&copies[0]) != inode(&copies[1]), "copies, not names of one file");
    // Whoever died between the commit and the names left this; anyone goes on from the commit alone.
    fs::remove_file(&copies[1]).unwrap();
    sweep(&work).unwrap();
    let found = run(&volume.planned(3), 0, 30, None).unwrap();
    assert!(found.found && found.bytes == input.len() as u64);
    assert_eq!(fs::read(&copies[1]).unwrap(), input);
    assert_eq!(names(&volume.own("pub")).len(), 2, "the commit and its folder");
}

#[test]
fn checksums_go_on_from_a_checkpoint_and_are_what_others_say() {
    let (big, small) = (noise(5 * MIB), noise(1000));
    let mut volume = tree(&[("big", &big), ("a b\\c", &small), ("empty", b"")]);
    volume.spec["source"]["files"]["filesPerShard"] = json!(10);
    volume.spec["task"] = json!({"checksum": {"algorithm": "SHA256"}});
    let records = volume.path("records");
    fs::create_dir(&records).unwrap();
    volume.spec["records"] = json!({"url": format!("file://{}/", records.display())});
    volume.spec.as_object_mut().unwrap().remove("output");
    let checkpoint = first_checkpoint(&volume.planned(1));
    let work = volume.planned(2);
    run(&work, 0, 20, Some(checkpoint)).unwrap();
    sweep(&work).unwrap();
    let sums = records.join(volume.uid).join("SHA256SUMS");
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict"]).arg(&sums).current_dir(volume.path("in"));
    let said = check.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8(said.stdout).unwrap().lines().count(), 3);
    assert!(fs::read_to_string(records.join(volume.uid).join("report.jsonl")).unwrap().contains("\"sha256/1\""));
}

#[test]
fn results_of_a_job_that_is_gone_are_used_again_only_when_everything_is_the_same() {
    let mut volume = Volume::new(&noise(10_000), "4Ki");
    let old = volume.planned(1);
    run(&old, 0, 10, None).unwrap();
    let part = fs::metadata(volume.path("out/part-000000")).unwrap().ino();
    let uid = JobUid(volume.uid.into());
    volume.uid = "00000000-0000-4000-8000-000000000002";
    volume.spec["output"]["existing"] = json!("Reuse");
    let work = volume.work(2);
    let Ok(Outcome::Claimed(owner)) = plan_as_heir(&work, None) else { panic!("the owner is not asked for") };
    assert_eq!(owner.uid, uid);
    let gone = Some(claim::digest(&uid));
    volume.spec["task"] = json!({"checksum": {}});
    volume.spec["source"]["files"] = json!({"url": volume.spec["source"]["files"]["url"], "boundary": "File"});
    let failure = refused(plan_as_heir(&volume.work(3), gone));
    assert!(failure.message.contains("other input or another task"), "{}", failure.message);
    let Ok(Outcome::Planned(planned)) = plan_as_heir(&work, gone) else { panic!("no plan") };
    work.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    let found: Vec<bool> = (0..3).map(|index| run(&work, index, 20, None).unwrap().found).collect();
    assert_eq!(found, [true, false, false]);
    assert_eq!(fs::metadata(volume.path("out/part-000000")).unwrap().ino(), part);
    let late = refused(run(&old, 1, 11, None));
    assert_eq!((late.reason.as_str(), late.ends_job), ("OutputClaimed", true), "a late worker of the old job stops");
    sweep(&work).unwrap();
    let report = fs::read_to_string(volume.own("report.jsonl")).unwrap();
    assert_eq!(report.matches("\"published\":true").count(), 3, "{report}");
}

#[test]
fn names_of_a_job_that_is_gone_without_a_plan_are_taken_over_with_nothing_in_them() {
    let mut volume = Volume::new(&noise(10_000), "4Ki");
    plan(&volume.work(1)).unwrap();
    fs::remove_dir_all(volume.own("")).unwrap();
    let gone = Some(claim::digest(&JobUid(volume.uid.into())));
    volume.uid = "00000000-0000-4000-8000-000000000002";
    volume.spec["output"]["existing"] = json!("Reuse");
    let work = volume.work(2);
    let Ok(Outcome::Planned(planned)) = plan_as_heir(&work, gone) else { panic!("no plan") };
    work.use_plan(PlanRef { shards: planned.shards, digest: planned.digest });
    assert!((0..3).all(|index| !run(&work, index, 20, None).unwrap().found));
    assert_eq!(fs::read(volume.path("out/part-000002")).unwrap().len(), 10_000 - 8192);
}

#[test]
fn two_inputs_with_one_result_are_both_named_and_compressed_lines_are_not_cut() {
    let mut volume = tree(&[("a.pdf", b"1"), ("a.txt", b"2")]);
    volume.spec["output"]["path"] = json!("{stem}.json");
    let failure = refused(plan(&volume.work(1)));
    assert_eq!(failure.reason, "OutputNameCollision");
    assert!(failure.message.contains("'a.pdf' and 'a.txt' would both be 'a.json'"), "{}", failure.message);
    assert!(!volume.path("out").exists());
    let mut volume = Volume::new(&[&[0x1f, 0x8b][..], &noise(9000)].concat(), "4Ki");
    volume.spec["source"]["files"]["boundary"] = json!("Line");
    let failure = refused(plan(&volume.work(1)));
    assert_eq!(failure.reason, "InputNotSplittable");
    assert!(failure.message.contains("is gzip and cannot be cut"), "{}", failure.message);
}
