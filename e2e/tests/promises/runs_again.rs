//! What failed runs again in the same object, with a mended program and nothing else; what was published stays as it is,
//! whoever is killed meanwhile.

use std::{fs, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    command, ensure,
    job::{Job, has, shards},
    oracle,
};
use serde_json::{Value, json};

use super::{BUSYBOX, program};

const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    tokio::try_join!(mends_the_program(place), chooses_indexes(place), changes_its_mind(place))?;
    Ok(())
}

fn squares(name: &str, script: &str, path: &str) -> Value {
    let exec = json!({"command": ["sh", "-c", script], "input": "None", "output": "Stdout"});
    let mut job = program(name, BUSYBOX, json!({"numbers": {"count": 12}}), &exec);
    job["spec"]["output"] = json!({"url": format!("file:///data/out/{name}/"), "path": path});
    job
}

/// Waits for the end of a run.
async fn ended(job: &Job, run: i32, condition: &str) -> Result<ShardJobStatus> {
    let is_over = |status: &ShardJobStatus| {
        (status.run == Some(run) && (has(status, "Complete") || has(status, "Failed"))).then(|| status.clone())
    };
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = is_over(&job.status().await.unwrap_or_default()) {
            ensure(has(&status, condition), || format!("run {run} is not {condition}: {status:?}"))?;
            return Ok(status);
        }
        ensure(start.elapsed() < LIMIT, || format!("run {run} did not end in {LIMIT:?}"))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Three shards fail by a bug; the program is changed together with the nonce, and these three alone run again.
async fn mends_the_program(place: &Place) -> Result {
    let script = "[ $((HYPERFLOW_START % 4)) = 3 ] && exit 65; echo one $HYPERFLOW_START";
    let job = place.apply(squares("mended", script, "part-{index}")).await?;
    ended(&job, 1, "Failed").await?;
    let before = oracle::tree(&place.path("out/mended"))?;
    ensure(before.len() == 9, || format!("{:?}", before.keys()))?;
    let program = json!({"exec": {"command": ["sh", "-c", "echo two $HYPERFLOW_START $HYPERFLOW_RUN"]}});
    let alone = job.patch(json!({"spec": {"task": program}})).await;
    command::refused("another program without a new nonce", alone.map(|()| String::new()))?;
    job.patch(json!({"spec": {"task": program, "rerun": {"nonce": "mended"}}})).await?;
    let status = ended(&job, 2, "Complete").await?;
    ensure(status.observed_rerun_nonce.as_deref() == Some("mended"), || format!("{status:?}"))?;
    let after = oracle::tree(&place.path("out/mended"))?;
    for (name, bytes) in &after {
        let number: u32 = name.trim_start_matches("part-").parse()?;
        let wanted = if number % 4 == 3 { format!("two {number} 2\n") } else { format!("one {number}\n") };
        ensure(*bytes == wanted.into_bytes(), || format!("{name}: {:?}", String::from_utf8_lossy(bytes)))?;
    }
    let report = oracle::report(place, &status)?;
    let runs: Vec<i64> = report.iter().filter_map(|line| line["run"].as_i64()).collect();
    ensure(runs == [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2], || format!("the report has runs {runs:?}"))
}

/// Indexes that succeeded run again where their names say which run they are of, and only there.
async fn chooses_indexes(place: &Place) -> Result {
    let job = place.apply(squares("chosen", "echo $HYPERFLOW_START", "part-{index}.{run}")).await?;
    ended(&job, 1, "Complete").await?;
    job.patch(json!({"spec": {"rerun": {"nonce": "b", "scope": "Indexes", "indexes": "3,7-8"}}})).await?;
    ended(&job, 2, "Complete").await?;
    let names: Vec<String> =
        oracle::tree(&place.path("out/chosen"))?.into_keys().filter(|name| name.ends_with(".2")).collect();
    ensure(names == ["part-000003.2", "part-000007.2", "part-000008.2"], || format!("{names:?}"))?;

    let job = place.apply(squares("kept", "echo $HYPERFLOW_START", "part-{index}")).await?;
    ended(&job, 1, "Complete").await?;
    job.patch(json!({"spec": {"rerun": {"nonce": "b", "scope": "Indexes", "indexes": "3"}}})).await?;
    let refused = |status: &ShardJobStatus| status.observed_rerun_nonce.as_deref() == Some("b");
    let start = std::time::Instant::now();
    while !refused(&job.status().await?) {
        ensure(start.elapsed() < LIMIT, || "the nonce was not seen".into())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status = job.status().await?;
    ensure(has(&status, "Complete") && status.run == Some(1), || format!("{status:?}"))?;
    ensure(fs::read_to_string(place.path("out/kept/part-000003"))? == "3\n", || "it was changed".into())
}

/// The program is changed in the middle of a run, and the leader is killed at once: what is done stays, the rest is done by
/// the new program.
async fn changes_its_mind(place: &Place) -> Result {
    let mut manifest = squares("changed", "sleep 1; echo old", "part-{index}");
    manifest["spec"]["source"]["numbers"]["count"] = json!(30);
    let job = place.apply(manifest).await?;
    job.wait("six shards", LIMIT, |status| (shards(status).succeeded >= 6).then_some(())).await?;
    let program = json!({"exec": {"command": ["sh", "-c", "echo new"]}});
    job.patch(json!({"spec": {"task": program, "rerun": {"nonce": "now"}}})).await?;
    let status = ended(&job, 2, "Complete").await?;
    let results = oracle::tree(&place.path("out/changed"))?;
    let (old, new) = (
        results.values().filter(|it| **it == b"old\n").count(),
        results.values().filter(|it| **it == b"new\n").count(),
    );
    ensure(old >= 6 && new >= 6 && old + new == 30, || format!("{old} old and {new} new results"))?;
    ensure(shards(&status).succeeded == 30, || format!("{:?}", status.shards))
}
