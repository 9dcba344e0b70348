//! A job is deleted half-way, and another one goes on from its results (P31): what is published stays as it is, down to the
//! inode, and the rest is done. Only who asks for it may, only when the owner is gone, and only with the same input.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant, SystemTime},
};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Job},
    oracle,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const MIB: usize = 1 << 20;
const SHARDS: i32 = 12;

/// Results by name: which file each is, and when it was written.
type Results = BTreeMap<String, (u64, SystemTime)>;

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", 48 * MIB, 31)?;
    place.write_input("other", 48 * MIB, 32)?;
    let first = place.apply(super::copy("first", "4Mi", "8Mi", 2, 1)).await?;
    let some = |status: &_| (job::shards(status).succeeded >= 3).then_some(());
    first.wait("three shards done", LIMIT, some).await?;
    delete(&first).await?;
    let left = results(place)?;
    let half = (3..SHARDS as usize).contains(&left.len());
    ensure(half, || format!("{} results of {SHARDS} were published half-way", left.len()))?;

    tokio::try_join!(is_refused_without_asking(place), is_refused_for_other_input(place))?;
    ensure(results(place)? == left, || "a refused job changed results".into())?;

    // Under the same name: it is another job all the same.
    let heir = place.apply(reusing("first", "input")).await?;
    let all = complete_over(place, &heir, &left).await?;

    let late = place.apply(reusing("late", "input")).await?;
    claimed(&late, &["belongs to ShardJob 'first'", "which still exists. Nothing was written. Delete it"]).await?;

    // And once more, over all of its own old results.
    delete(&heir).await?;
    let again = place.apply(super::copy("first", "4Mi", "1G", 1, 1)).await?;
    claimed(&again, &["belongs to ShardJob 'first'", "set `spec.output.existing` to 'Reuse'"]).await?;
    delete(&again).await?;
    let again = place.apply(reusing("first", "input")).await?;
    let same = complete_over(place, &again, &all).await?;
    ensure(same == all, || "results of the last job were written again".into())
}

async fn is_refused_without_asking(place: &Place) -> Result {
    let job = place.apply(super::copy("stranger", "4Mi", "1G", 1, 1)).await?;
    let words = [
        "'file:///data/out/' with path 'part-{index}' belongs to ShardJob 'first', uid ",
        "Nothing was written. If it was deleted, set `spec.output.existing` to 'Reuse'",
        "to go on from its results (same input and task), or choose another `spec.output.url`",
    ];
    claimed(&job, &words).await
}

async fn is_refused_for_other_input(place: &Place) -> Result {
    let other_input = place.apply(reusing("other-input", "other")).await?;
    let mut manifest = reusing("other-shards", "input");
    manifest["spec"]["source"]["files"]["bytesPerShard"] = json!("8Mi");
    let other_shards = place.apply(manifest).await?;
    let words = ["belongs to ShardJob 'first'", "which had other input or another task", "Nothing was written"];
    claimed(&other_input, &words).await?;
    claimed(&other_shards, &words).await
}

fn reusing(name: &str, input: &str) -> Value {
    let mut manifest = super::copy(name, "4Mi", "1G", 1, 1);
    manifest["spec"]["source"]["files"]["url"] = json!(format!("file:///data/in/{input}"));
    manifest["spec"]["output"]["existing"] = json!("Reuse");
    manifest
}

async fn claimed(job: &Job, words: &[&str]) -> Result {
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "OutputClaimed", || format!("{}: {reason}: {message}", job.name))?;
    for word in words {
        ensure(message.contains(word), || format!("{}: '{message}' does not say '{word}'", job.name))?;
    }
    Ok(())
}

/// The job completes: its results are the input, those in `left` are what they were, and nothing temporary is anywhere.
async fn complete_over(place: &Place, job: &Job, left: &Results) -> Result<Results> {
    let status = job.complete(LIMIT).await?;
    let counts = job::shards(&status);
    ensure((counts.total, counts.succeeded) == (SHARDS, SHARDS), || format!("{counts:?}"))?;
    let output = place.path("out");
    let parts = oracle::parts(&output)?;
    ensure(parts.len() == SHARDS as usize, || format!("{} results", parts.len()))?;
    let same = oracle::checksum(&parts)? == oracle::checksum(&[place.path("in/input")])?;
    ensure(same, || "the results together are not the input".into())?;
    let found = results(place)?;
    for (name, kept) in left {
        ensure(found.get(name) == Some(kept), || format!("{name} was written again"))?;
    }
    for folder in fs::read_dir(output.join("_hyperflow"))? {
        for name in ["stage", "ckpt"] {
            let left = folder.as_ref().map(|folder| folder.path().join(name)).ok().filter(|path| path.exists());
            ensure(left.is_none(), || format!("{left:?} is still there"))?;
        }
    }
    let report = oracle::report(place, &status)?;
    ensure(report.iter().all(|line| line["published"] == true), || format!("{report:?}"))?;
    Ok(found)
}

fn results(place: &Place) -> Result<Results> {
    let mut results = Results::new();
    for part in oracle::parts(&place.path("out"))? {
        let found = fs::metadata(&part)?;
        results.insert(part.display().to_string(), (found.ino(), found.modified()?));
    }
    Ok(results)
}

async fn delete(job: &Job) -> Result {
    job.delete().await?;
    let start = Instant::now();
    while job.exists().await? {
        ensure(start.elapsed() < LIMIT, || format!("{} is still there", job.name))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
