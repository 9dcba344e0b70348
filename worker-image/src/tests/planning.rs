//! A plan is made once, for one job, and a job that is refused leaves nothing behind.

use std::fs;

use serde_json::json;

use super::{Volume, names, noise, plan, refused};

#[test]
fn a_plan_is_made_once_and_found_from_then_on() {
    let volume = Volume::new(&noise(10_000), "4Ki");
    let first = plan(&volume.work(1)).unwrap();
    assert_eq!((first.shards, first.files, first.bytes), (3, 1, 10_000));
    assert!(first.url.ends_with(&format!("/out/_hyperflow/{}/plan", volume.uid)), "{}", first.url);
    fs::write(volume.path("in/data"), noise(20_000)).unwrap();
    assert_eq!(plan(&volume.work(2)).unwrap(), first, "the stored plan is the plan, whatever became of the input");
    assert_eq!(names(&volume.own("")), ["ckpt", "plan", "pub", "records", "stage"]);
}

#[test]
fn planners_that_race_report_one_plan() {
    let volume = Volume::new(&noise(10_000), "4Ki");
    for _ in 0..20 {
        let works = [volume.work(1), volume.work(2)];
        let plans = std::thread::scope(|scope| {
            let racers = works.each_ref().map(|work| scope.spawn(move || plan(work)));
            racers.map(|racer| racer.join().unwrap().unwrap())
        });
        assert_eq!(plans[0], plans[1]);
        fs::remove_dir_all(volume.path("out")).unwrap();
    }
}

#[test]
fn a_missing_input_is_named_with_the_nearest_name_and_nothing_is_written() {
    let mut volume = Volume::new(&noise(100), "4Ki");
    let url = volume.spec["source"]["files"]["url"].as_str().unwrap().replace("/in/data", "/in/Dta");
    volume.spec["source"]["files"]["url"] = json!(url);
    let failure = refused(plan(&volume.work(1)));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("NoInput", true));
    assert!(failure.message.starts_with(&format!("no file at '{url}': correct")), "{}", failure.message);
    assert!(failure.message.ends_with("The nearest is 'data'"), "{}", failure.message);
    assert!(!volume.path("out").exists());
}

#[test]
fn a_directory_is_no_input() {
    let mut volume = Volume::new(&noise(100), "4Ki");
    volume.spec["source"]["files"]["url"] = json!(format!("file://{}", volume.path("in").display()));
    let failure = refused(plan(&volume.work(1)));
    assert_eq!(failure.reason, "NoInput");
    assert!(failure.message.contains("/in': a directory must end with '/': use '"), "{}", failure.message);
}

#[test]
fn names_that_another_job_claimed_are_refused() {
    let mut volume = Volume::new(&noise(100), "4Ki");
    plan(&volume.work(1)).unwrap();
    volume.uid = "00000000-0000-4000-8000-000000000002";
    let failure = refused(plan(&volume.work(2)));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutputClaimed", true));
    let told =
        "with path 'part-{index}' belongs to ShardJob 'copy', uid 5b1e0c44. Nothing was written. If it was deleted";
    assert!(failure.message.contains(told), "{}", failure.message);
    assert!(!volume.own("").exists());
    volume.spec["output"]["path"] = json!("piece-{index}");
    assert!(plan(&volume.work(2)).is_ok(), "other names in the same directory are free");
}

#[test]
fn names_that_are_taken_are_refused_and_nothing_is_written() {
    for (path, there) in
        [("part-{index}", "part-000001"), ("a/b/{index}.bin", "a/b/000001.bin"), ("{index}/x", "000001/x")]
    {
        let mut volume = Volume::new(&noise(10_000), "4Ki");
        volume.spec["output"]["path"] = json!(path);
        let file = volume.path("out").join(there);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"mine").unwrap();
        let failure = refused(plan(&volume.work(1)));
        assert_eq!((failure.reason.as_str(), failure.ends_job), ("OutputExists", true));
        assert!(failure.message.contains(there), "{}", failure.message);
        assert!(!volume.path("out/_hyperflow").exists());
    }
}

#[test]
fn a_plan_for_an_earlier_spec_is_not_used() {
    let mut volume = Volume::new(&noise(10_000), "4Ki");
    plan(&volume.work(1)).unwrap();
    volume.spec["source"]["files"]["bytesPerShard"] = json!("8Ki");
    let failure = refused(plan(&volume.work(2)));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("PlanMismatch", true));
}

#[test]
fn an_output_that_leads_out_of_the_volume_is_refused_and_left_alone() {
    let volume = Volume::new(&noise(100), "4Ki");
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), volume.path("out")).unwrap();
    assert_eq!(refused(plan(&volume.work(1))).reason, "OutsideVolumes");
    assert!(names(elsewhere.path()).is_empty());
}

#[test]
fn an_empty_input_makes_an_empty_plan() {
    let volume = Volume::new(b"", "4Ki");
    assert_eq!(plan(&volume.work(1)).unwrap().shards, 0);
}
