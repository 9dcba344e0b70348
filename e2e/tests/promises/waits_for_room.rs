//! The volume of the results is full in the middle of a job: shards wait, use up no attempt and are tried again, status
//! says so, and when there is room the job goes on and is complete.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    fault::finally,
    job::{self, Job},
    oracle,
};
use serde_json::json;
use tokio::process::Command;

const MIB: usize = 1 << 20;
const SHARDS: u32 = 40;
const VOLUME_MIB: usize = 72;
/// So much is left for results: seven shards at most.
const ROOM_MIB: usize = 8;
/// Four slots, and what their workers hold beside.
const BEGUN: i32 = 16;
/// More rounds than there are attempts.
const FULL: Duration = Duration::from_secs(15);
/// As the job below has it.
const MAX_ATTEMPTS: i32 = 2;

pub async fn keeps(place: &Place) -> Result {
    let output = place.path("out");
    // The workers see what is mounted here before they start, and the size of a file system is the same everywhere.
    let size = format!("size={VOLUME_MIB}m,mode=0755,uid=65532,gid=65532");
    host(&["mount", "-t", "tmpfs", "-o", &size, "hyperflow-e2e"], &output).await?;
    finally(waits(place, &output), async {
        let start = Instant::now();
        // A pod that is on its way out holds no mount of ours, for its own is a copy.
        while host(&["umount"], &output).await.is_err() {
            ensure(start.elapsed() < Duration::from_secs(30), || format!("{} stays mounted", output.display()))?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    })
    .await
}

async fn waits(place: &Place, output: &Path) -> Result {
    let input = place.write_input("input", SHARDS as usize * MIB, 65)?;
    let filler = filler(output)?;
    let mut manifest = super::copy("full", "1Mi", "8Mi", 2, 2);
    manifest["spec"]["failurePolicy"] =
        json!({"maxAttempts": MAX_ATTEMPTS, "backoff": {"initialSeconds": 1, "maxSeconds": 2}});
    let job = place.apply(manifest).await?;
    let said = |status: &ShardJobStatus| {
        let waits = status.conditions.iter().find(|it| it.type_ == "Reconciling")?;
        (waits.status == "True" && waits.reason == "OutputFull").then(|| waits.message.clone())
    };
    let (message, took) = job.wait("OutputFull", Duration::from_secs(60), said).await?;
    println!("     full after {took:.1?}: {message}");
    ensure(message.contains("`spec.output.url` is full: make room"), || format!("no remedy in '{message}'"))?;
    stays_full(&job).await?;

    fs::remove_file(&filler)?;
    let freed = Instant::now();
    let status = job.complete(Duration::from_secs(60)).await?;
    println!("     complete {:.1?} after there was room", freed.elapsed());
    ensure(job::shards(&status).failed == 0, || format!("{:?}", job::shards(&status)))?;
    oracle::check_copy(&input, output, SHARDS)?;
    Ok(())
}

/// It waits for as long as there is no room, with few shards begun and none given up.
async fn stays_full(job: &Job) -> Result {
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < FULL {
        let status = job.status().await?;
        let shards = job::shards(&status);
        ensure(!job::has(&status, "Failed") && shards.failed == 0, || format!("given up: {:?}", status.failures))?;
        most = most.max(shards.waiting + shards.active);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status = job.status().await?;
    let sample = status.failures.iter().find(|sample| sample.reason == "OutputFull").ok_or("no sample of it")?;
    println!("     tried {} times, {most} shards begun at most", sample.count);
    ensure(sample.class == "Store" && sample.message.contains("No space left"), || format!("{sample:?}"))?;
    // Each of them more often than it has attempts.
    ensure(sample.count > most * MAX_ATTEMPTS, || format!("tried {} times only", sample.count))?;
    ensure(most <= BEGUN, || format!("{most} shards were begun though there was no room"))
}

/// Takes all but a little of the room.
fn filler(output: &Path) -> Result<PathBuf> {
    let path = output.join("filler");
    fs::write(&path, oracle::noise((VOLUME_MIB - ROOM_MIB) * MIB, 66))?;
    Ok(path)
}

async fn host(command: &[&str], folder: &Path) -> Result {
    let done = Command::new(command[0]).args(&command[1..]).arg(folder).output().await?;
    ensure(done.status.success(), || format!("{}: {}", command.join(" "), String::from_utf8_lossy(&done.stderr)))
}
