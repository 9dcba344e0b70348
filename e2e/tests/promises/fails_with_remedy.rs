//! What turns out to be wrong when the data is looked at ends the job with a reason and a remedy, and nothing half-made
//! stays. An empty file is nothing wrong.

use std::{fs, time::Duration};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Job},
    oracle,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    missing_file_may_be_corrected(place).await?;
    existing_output_is_never_overwritten(place).await?;
    empty_file_completes(place).await?;
    shrinking_input_is_noticed(place).await
}

async fn fails(job: &Job, reason: &str, words: &[&str]) -> Result {
    let (said, message) = job.failed(LIMIT).await?;
    ensure(said == reason, || format!("failed with {said}, not {reason}: {message}"))?;
    for word in words {
        ensure(message.contains(word), || format!("'{message}' does not say '{word}'"))?;
    }
    let status = job.status().await?;
    ensure(job::has(&status, "Stalled") && !job::has(&status, "Reconciling"), || format!("{:?}", status.conditions))
}

async fn missing_file_may_be_corrected(place: &Place) -> Result {
    place.write_input("inputs", 1000, 1)?;
    let job = place.apply(super::copy("missing", "4Mi", "1G", 1, 1)).await?;
    fails(&job, "NoInput", &["file:///data/in/input", "inputs", "it may be changed until there is a plan"]).await?;
    let out = place.path("out");
    ensure(oracle::parts(&out)?.is_empty() && !out.join("_hyperflow/claims").join("x").exists(), || {
        "left over".into()
    })?;
    let input = place.path("in").join("inputs");
    job.patch(json!({"spec": {"source": {"files": {"url": "file:///data/in/inputs"}}}})).await?;
    let complete = |status: &_| job::has(status, "Complete").then_some(());
    let start = std::time::Instant::now();
    while start.elapsed() < LIMIT && complete(&job.status().await?).is_none() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    oracle::check_copy(&input, &out, 1)?;
    place.empty_output()
}

async fn existing_output_is_never_overwritten(place: &Place) -> Result {
    place.write_input("input", 10 << 20, 1)?;
    let theirs = place.path("out").join("part-000001");
    fs::write(&theirs, "precious")?;
    let job = place.apply(super::copy("exists", "4Mi", "1G", 1, 1)).await?;
    let words = ["file:///data/out/part-000001", "was not written by Hyperflow", "not overwritten"];
    fails(&job, "OutputExists", &words).await?;
    ensure(fs::read_to_string(&theirs)? == "precious", || "it was overwritten".into())?;
    let parts = oracle::parts(&place.path("out"))?;
    ensure(parts == [theirs], || format!("half-made results stay: {parts:?}"))?;
    place.empty_output()
}

async fn empty_file_completes(place: &Place) -> Result {
    place.write_input("input", 0, 1)?;
    let job = place.apply(super::copy("empty", "4Mi", "1G", 1, 1)).await?;
    let status = job.complete(LIMIT).await?;
    ensure(job::shards(&status).total == 0, || format!("{:?}", status.shards))?;
    ensure(oracle::parts(&place.path("out"))?.is_empty(), || "an empty file makes no parts".into())?;
    place.empty_output()
}

async fn shrinking_input_is_noticed(place: &Place) -> Result {
    let input = place.write_input("input", 24 << 20, 1)?;
    let job = place.apply(super::copy("shrinks", "8Mi", "4Mi", 1, 1)).await?;
    let under_way =
        |status: &_| job::attempts(status).ok()?.iter().any(|attempt| attempt.checkpoint.is_some()).then_some(());
    job.wait("a checkpoint", LIMIT, under_way).await?;
    fs::OpenOptions::new().write(true).open(&input)?.set_len(3 << 20)?;
    fails(&job, "InputChanged", &["file:///data/in/input", "Create a new ShardJob"]).await?;
    let output = place.path("out");
    for part in oracle::parts(&output)? {
        let size = fs::metadata(&part)?.len();
        ensure(size == 8 << 20, || format!("{} is half-made: {size} bytes", part.display()))?;
    }
    ensure(!oracle::job_folder(&output)?.join("stage").exists(), || "temporary files stay".into())
}
