//! A hundred thousand shards: status stays small and is written once a second, as the API server itself counts it,
//! and when the job is over nobody writes any more.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, control::Counts, ensure, harness, job};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::Value;

const SHARDS: u32 = 100_000;
const MOST_BYTES: usize = 16 * 1024;
const MOST_BYTES_A_SECOND: f64 = 32.0 * 1024.0;
/// The first write and the last wait for none before them.
const BESIDES: f64 = 2.0;
/// Nobody writes if nobody has for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How long an operator that has nothing to do is looked at.
const IDLE: Duration = Duration::from_secs(15);

pub async fn keeps(place: &Place) -> Result {
    let shards = if harness::soak() { 10 * SHARDS - 1 } else { SHARDS };
    let mut numbers = job::manifest("numbers")?;
    numbers["spec"]["source"]["numbers"]["count"] = shards.into();
    let many = written(place, numbers, shards).await?;
    // Nothing is done so fast that a second says little: some twenty seconds with sixteen shards in each.
    place.write_input("input", 40 << 20, 11)?;
    let steady = written(place, super::copy("steady", "128Ki", "2Mi", 2, 2), 320).await?;

    let before = quiet(place).await?;
    tokio::time::sleep(IDLE).await;
    let idle = all_writes(&place.cluster.api_server_counts().await?) - all_writes(&before);
    ensure(idle < 0.5, || format!("{idle} writes of ShardJobs in {IDLE:?} with nothing to do"))?;

    ensure(steady.seconds > 10.0, || format!("too short to tell how often status is written: {steady:?}"))?;
    for job in [&steady, &many] {
        ensure(job.most < MOST_BYTES, || format!("a status of {} bytes", job.most))?;
        let a_second = job.bytes / job.seconds;
        ensure(job.bytes > 0.0 && a_second <= MOST_BYTES_A_SECOND, || {
            format!("{a_second:.0} bytes a second: {job:?}")
        })?;
        let often = job.writes > job.seconds + BESIDES;
        ensure(job.writes >= 2.0 && !often, || format!("status was written too often: {job:?}"))?;
    }
    Ok(())
}

/// What a job cost the API server.
#[derive(Debug)]
struct Written {
    /// From before the job was applied to after it was seen to be complete.
    seconds: f64,
    /// Status writes.
    writes: f64,
    /// Bytes of all that was written.
    bytes: f64,
    /// Bytes of the largest status.
    most: usize,
}

async fn written(place: &Place, manifest: Value, shards: u32) -> Result<Written> {
    let (before, start) = (quiet(place).await?, Instant::now());
    let job = place.apply(manifest).await?;
    let diary = place.diary(&job).await?;
    let status = job.complete(Duration::from_secs(600)).await?;
    let (after, seconds) = (place.cluster.api_server_counts().await?, start.elapsed().as_secs_f64());
    let counts = job::shards(&status);
    ensure(counts.completed_indexes == format!("0-{}", shards - 1), || format!("{counts:?}"))?;
    let entries = diary.close().await?;
    let most = entries.iter().map(|entry| entry.bytes).max().unwrap_or_default();
    let written = Written {
        seconds,
        writes: after.status_writes() - before.status_writes(),
        bytes: bodies(&after) - bodies(&before),
        most,
    };
    rest(place).await?;
    println!("     {shards} shards: {written:.1?}, {} versions were seen", entries.len());
    Ok(written)
}

/// Waits until the last worker is gone, those that are being deleted too: until then status may speak of them.
async fn rest(place: &Place) -> Result {
    let start = Instant::now();
    let pods: Api<Pod> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    while !pods.list(&ListParams::default()).await?.items.is_empty() {
        ensure(start.elapsed() < Duration::from_secs(30), || "workers are there half a minute after the end".into())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Waits until nobody writes any more: jobs of tests before this one may still say that their workers are gone.
async fn quiet(place: &Place) -> Result<Counts> {
    let start = Instant::now();
    let mut before = place.cluster.api_server_counts().await?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = place.cluster.api_server_counts().await?;
        if all_writes(&now) - all_writes(&before) < 0.5 {
            return Ok(now);
        }
        ensure(start.elapsed() < Duration::from_secs(60), || "ShardJobs are written with nothing to do".into())?;
        before = now;
    }
}

/// Bytes of all requests that write ShardJobs: the API server does not tell status apart here, and who applies a job
/// writes once and little.
fn bodies(counts: &Counts) -> f64 {
    let writes = ["update", "patch", "create"].map(|verb| format!("verb=\"{verb}\""));
    let of = |verb: &String| counts.sum("apiserver_request_body_size_bytes_sum", &["resource=\"shardjobs\"", verb]);
    writes.iter().map(of).sum()
}

/// All that the API server was asked to change about ShardJobs, whatever the answer.
fn all_writes(counts: &Counts) -> f64 {
    let writes = ["PUT", "PATCH", "APPLY", "POST", "DELETE"].map(|verb| format!("verb=\"{verb}\""));
    writes.iter().map(|verb| counts.sum("apiserver_request_total", &["resource=\"shardjobs\"", verb])).sum()
}
