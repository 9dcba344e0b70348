//! A job fails when its time is over, and says how far it came. The time in which it is suspended does not count, another
//! operator does not begin it anew, and it may be raised until it has passed.

use std::time::{Duration, Instant};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    diary::term,
    ensure,
    fault::finally,
    job::{self, Job},
    oracle,
};
use serde_json::json;

const MIB: usize = 1 << 20;
/// What the job is given at first: less than it is suspended for.
const FIRST: u64 = 20;
const RAISED: u64 = 30;
const SUSPENDED: Duration = Duration::from_secs(25);
/// Another operator leads after eight seconds; a worker sweeps before the end is said.
const LATE: Duration = Duration::from_secs(8 + 12);

pub async fn keeps(place: &Place) -> Result {
    // A MiB a second in all: twice as long as it gets.
    let input = place.write_input("input", 60 * MIB, 61)?;
    let mut manifest = super::copy("late", "1Mi", "1Mi", 2, 1);
    manifest["spec"]["activeDeadlineSeconds"] = FIRST.into();
    let start = Instant::now();
    let job = place.apply(manifest).await?;
    let accepted = |status: &ShardJobStatus| status.start_time.as_ref().map(drop);
    job.wait("an operator", Duration::from_secs(10), accepted).await?;
    job.patch(json!({"spec": {"activeDeadlineSeconds": RAISED}})).await?;
    let begun = |status: &ShardJobStatus| (job::shards(status).succeeded >= 1).then_some(());
    job.wait("a shard done", Duration::from_secs(RAISED), begun).await?;

    let rested = rests(&job).await?;
    let before = job.status().await?;
    let ended = async {
        let leader = place.cluster.kill_leader().await?;
        println!("     {leader} was killed");
        let (reason, message) = job.failed(Duration::from_secs(RAISED) + LATE).await?;
        Ok((reason, message, start.elapsed()))
    };
    let (reason, message, after) = finally(ended, place.cluster.mended()).await?;
    let active = after.saturating_sub(rested);
    println!("     failed after {after:.1?}, {active:.1?} of them active");
    ensure(reason == "DeadlineExceeded", || format!("failed with {reason}: {message}"))?;
    let status = job.status().await?;
    let done = job::shards(&status).succeeded;
    let limit = format!("{RAISED} s");
    for word in [limit.as_str(), "`spec.activeDeadlineSeconds`", " of 60 shards were done", "Create another ShardJob"] {
        ensure(message.contains(word), || format!("'{message}' does not say '{word}'"))?;
    }
    ensure(job::has(&status, "Stalled") && !job::has(&status, "Reconciling"), || format!("{:?}", status.conditions))?;
    // The clock counts in whole seconds.
    let (least, most) = (Duration::from_secs(RAISED - 2), Duration::from_secs(RAISED) + LATE);
    ensure((least..most).contains(&active), || format!("the job was active for {active:?}, not for {RAISED} s"))?;
    ensure(term(&status) > term(&before), || "no other operator took the job over".into())?;
    stays(place, &input, done).await
}

/// Suspended for longer than the first deadline; how long it was.
async fn rests(job: &Job) -> Result<Duration> {
    let start = Instant::now();
    job.patch(json!({"spec": {"suspend": true}})).await?;
    let suspended = |status: &ShardJobStatus| job::has(status, "Suspended").then_some(());
    job.wait("Suspended", Duration::from_secs(20), suspended).await?;
    tokio::time::sleep(SUSPENDED).await;
    let clock = |status: &ShardJobStatus| status.recovery.clone().unwrap_or_default().clock;
    let status = job.status().await?;
    ensure(!job::has(&status, "Failed"), || "the time in which it was suspended was counted".into())?;
    ensure(!clock(&status).contains('u'), || format!("the clock of a suspended job goes: '{}'", clock(&status)))?;
    job.patch(json!({"spec": {"suspend": false}})).await?;
    Ok(start.elapsed())
}

/// Results that were published are there and right, nothing temporary is, and nobody works on.
async fn stays(place: &Place, input: &std::path::Path, done: i32) -> Result {
    let start = Instant::now();
    while !place.workers().await?.is_empty() {
        ensure(start.elapsed() < Duration::from_secs(30), || "workers of a job that failed run on".into())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let parts = oracle::parts(&place.path("out"))?;
    ensure(done >= 1 && parts.len() >= usize::try_from(done)?, || format!("{done} done, {} results", parts.len()))?;
    let input = std::fs::read(input)?;
    for part in parts {
        let name = part.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index: usize = name.trim_start_matches("part-").parse()?;
        let right = std::fs::read(&part)? == input[index * MIB..(index + 1) * MIB];
        ensure(right, || format!("'{name}' is not what it should be"))?;
    }
    let folder = oracle::job_folder(&place.path("out"))?;
    let left: Vec<&str> = ["stage", "ckpt"].into_iter().filter(|name| folder.join(name).exists()).collect();
    ensure(left.is_empty(), || format!("left behind: {left:?}"))
}
