//! `helm --wait` means *finished*: a chart with a ShardJob is installed when the job is Complete, and fails at once, with the
//! job's own words, when the job fails. What an older spec came to does not count.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    command::{refused, run},
    ensure,
    job::{has, shards},
    oracle,
};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
/// Much longer than any of the jobs: whoever waits for it to pass was not told.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    returns_when_complete(place).await?;
    fails_when_failed(place).await?;
    forgets_what_an_older_spec_came_to(place).await
}

async fn returns_when_complete(place: &Place) -> Result {
    place.write_input("input", 16 * MIB, 11)?;
    // Some seconds, so that whoever does not wait is found out.
    let job = super::copy("finished", "4Mi", "8Mi", 1, 2);
    helm(place, "install", &job).await?;
    let status = place.job("finished").status().await?;
    let done = shards(&status).succeeded;
    ensure(has(&status, "Complete") && done == 4, || format!("helm returned with {done} of 4 shards done"))?;
    place.empty_output()
}

async fn fails_when_failed(place: &Place) -> Result {
    let mut job = super::copy("corrected", "4Mi", "1G", 1, 2);
    job["spec"]["source"]["files"]["url"] = json!("file:///data/in/nothing");
    let start = Instant::now();
    let said = refused("a chart whose job failed", helm(place, "install", &job).await)?;
    ensure(start.elapsed() < PATIENCE / 2, || format!("helm noticed after {:.1?}: {said}", start.elapsed()))?;
    ensure(said.contains("no file at 'file:///data/in/nothing'"), || format!("helm does not say why: {said}"))
}

/// The failed job is Stalled until an operator has seen the correction: helm must not take that for its outcome.
async fn forgets_what_an_older_spec_came_to(place: &Place) -> Result {
    helm(place, "upgrade", &super::copy("corrected", "4Mi", "1G", 1, 2)).await?;
    let status = place.job("corrected").status().await?;
    ensure(has(&status, "Complete"), || format!("helm returned, but: {:?}", status.conditions))?;
    oracle::check_copy(&place.path("in").join("input"), &place.path("out"), 4)?;
    Ok(())
}

/// Installs or upgrades the release of a chart that holds this job alone, and waits for it as users do.
async fn helm(place: &Place, verb: &str, job: &Value) -> Result<String> {
    let name = job["metadata"]["name"].as_str().ok_or("a job without name")?;
    let chart = chart(place, job)?;
    let timeout = format!("{}s", PATIENCE.as_secs());
    let chart = chart.display().to_string();
    run("helm", &[verb, name, &chart, "--namespace", &place.namespace, "--wait", "--timeout", &timeout]).await
}

/// Writes a chart that holds this job alone.
pub fn chart(place: &Place, job: &Value) -> Result<PathBuf> {
    let folder = place.path("chart");
    std::fs::create_dir_all(folder.join("templates"))?;
    std::fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: chart\nversion: 0.1.0\n")?;
    // Two braces would be Helm's, and a job has those of `{index}` alone.
    std::fs::write(folder.join("templates/job.yaml"), serde_json::to_string_pretty(job)?)?;
    Ok(folder)
}
