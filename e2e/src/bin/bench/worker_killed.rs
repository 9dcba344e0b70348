//! Seconds from the SIGKILL of a worker until its shards are under way elsewhere, beside an Indexed Job whose pod is
//! killed: there a new pod is made after a back-off.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Attempt, Job, shards},
    oracle, process,
};
use serde_json::json;

use crate::{
    bench::Bench,
    indexed_job::IndexedJob,
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static USUALLY: Row = Row { name: "worker_killed", unit: "s", reach: Reach::Within(0.5), of: Of::Median };
static AT_MOST: Row = Row { name: "worker_killed_p99", unit: "s", reach: Reach::Within(3.0), of: Of::P99 };

const KILLS: usize = 4;
const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
/// Eight shards on six slots: when the last two are under way, there is room for them elsewhere.
const SHARDS: u32 = 8;
const WORKERS: u32 = 3;
const SLOTS: u32 = 2;
const LAST: i32 = 2;
/// Runs until it is ended, and is on the nodes: the sandbox of every pod.
const PAUSE: &str = "hyperflow.dev/pause:1";

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (ours, peer) = bench.in_turn(kills(bench), pod_killed(bench)).await;
    let (ours, peer) = (ours?, peers::measured("Indexed Job, restartPolicy Never", peer));
    let note = format!("{KILLS} kills of a worker, {} shards moved", ours.len());
    Ok(vec![
        Sample { row: &USUALLY, ours: ours.clone(), peer: peer.clone(), note },
        Sample { row: &AT_MOST, ours, peer, note: String::new() },
    ])
}

async fn kills(bench: &Bench) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for _ in 0..KILLS {
        all.extend(bench.within(kill).await?);
    }
    Ok(all)
}

/// Kills a worker in the middle of its shards; how long each of them took to be under way again.
async fn kill(place: &Place) -> Result<Vec<f64>> {
    let input = place.write_input("input", 2 * MIB * SHARDS as usize, 3)?;
    let mut manifest = ours::copy("2Mi", WORKERS, SLOTS);
    manifest["spec"]["workers"]["bytesPerSecond"] = "2Mi".into();
    // Without checkpoints the result is the segment of the attempt that published it, made when that attempt began.
    manifest["spec"]["checkpoint"] = json!({"periodSeconds": 3600, "bytes": "64Mi"});
    let job = place.apply(manifest).await?;
    let (victims, _) = job.wait("two last shards and room for them", LIMIT, last_ones).await?;
    let worker = place.worker(&victims[0].pod).await?;
    let at = process::kill(&worker)?;
    moved(place, &job, &victims, at).await.and_then(|seconds| {
        oracle::check_copy(&input, &place.path("out"), SHARDS)?;
        Ok(seconds)
    })
}

/// What one worker holds of the last shards, while all workers are ready.
fn last_ones(status: &ShardJobStatus) -> Option<Vec<Attempt>> {
    let counts = shards(status);
    let ready = status.workers.as_ref().is_some_and(|workers| workers.ready == i32::try_from(WORKERS).unwrap_or(0));
    let last = counts.succeeded + LAST >= counts.total && counts.active > 0;
    let attempts = job::attempts(status).ok()?;
    let pod = attempts.first()?.pod.clone();
    (ready && last && counts.total > 0).then(|| attempts.into_iter().filter(|attempt| attempt.pod == pod).collect())
}

async fn moved(place: &Place, job: &Job, victims: &[Attempt], at: SystemTime) -> Result<Vec<f64>> {
    job.complete(LIMIT).await?;
    let records = oracle::records(&place.path("out"))?;
    let mut all = Vec::new();
    for victim in victims {
        // Status is up to a second old: what was done when the worker was killed did not move.
        if records.iter().any(|record| record.index == victim.index && !record.found && record.attempt > 1) {
            let result = place.path(&format!("out/part-{:06}", victim.index));
            all.push(fs::metadata(result)?.created()?.duration_since(at)?.as_secs_f64());
        }
    }
    ensure(!all.is_empty(), || format!("the worker had done its shards when it was killed: {records:?}"))?;
    Ok(all)
}

/// The same of an Indexed Job: from the SIGKILL until another pod runs the index.
async fn pod_killed(bench: &Bench) -> Result<f64> {
    bench
        .within(async |place| {
            let job = IndexedJob::create(place, 2, PAUSE, json!([])).await?;
            let victim = job.runs(0, None).await?;
            job.runs(1, None).await?;
            let at = process::kill(&victim)?;
            job.runs(0, Some(&victim)).await?;
            Ok(at.elapsed()?.as_secs_f64())
        })
        .await
}
