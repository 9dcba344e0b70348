//! What a job of a million shards costs the cluster while a thousand of them are under way: bytes of status, writes of it
//! a second, memory of the operator. An Indexed Job has no figure beside it: it may have 100,000 indexes.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    diary::Entry,
    ensure,
    job::shards,
    process,
};
use serde_json::json;
use tokio::{sync::watch, time};

use crate::{
    bench::Bench,
    copy_file::MEBIBYTES,
    noop_shards::SHARDS,
    ours,
    row::{Of, Peer, Reach, Row, Sample},
};

static BYTES: Row = Row { name: "million_shards", unit: "B status", reach: Reach::Within(65_536.0), of: Of::Most };
static WRITES: Row = Row { name: "million_shards_writes", unit: "writes/s", reach: Reach::Within(1.0), of: Of::Median };
static MEMORY: Row = Row { name: "million_shards_memory", unit: "MB RSS", reach: Reach::Within(150.0), of: Of::Most };

/// 4 GiB in 999,760 shards.
const BYTES_PER_SHARD: &str = "4296";
const WORKERS: u32 = 4;
const SLOTS: u32 = 250;
const ACTIVE: i32 = 1000;
/// So long a thousand are under way while writes are counted.
const STEADY: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (stop, stopped) = watch::channel(());
    let memory = tokio::spawn(most_memory(bench.cluster.clone(), stopped));
    let outcome = Box::pin(both(bench)).await;
    drop(stop);
    let (most, writes, note) = outcome?;
    let peer = || Peer::None("none: an Indexed Job may have 100,000 indexes; beside the limit".into());
    let sample = |row, ours, note| Sample { row, ours: vec![ours], peer: peer(), note };
    Ok(vec![
        sample(&BYTES, most as f64, note),
        sample(&WRITES, writes, String::new()),
        sample(&MEMORY, memory.await?? as f64 / 1e6, String::new()),
    ])
}

/// A million that do nothing, to their end; and of a million that take long, the beginning.
async fn both(bench: &Bench) -> Result<(usize, f64, String)> {
    let noop = async |place: &Place| ours::run_unstored(place, ours::noop(SHARDS, WORKERS, SLOTS)).await;
    let (_, entries) = bench.within(noop).await?;
    let input = bench.input(MEBIBYTES)?;
    let slow = async |place: &Place| {
        input.provide(place)?;
        steady(place).await
    };
    let (steady, writes) = bench.within(slow).await?;
    let active = |entries: &[Entry]| entries.iter().map(|entry| shards(&entry.status).active).max().unwrap_or(0);
    let most = |entries: &[Entry]| entries.iter().map(|entry| entry.bytes).max().unwrap_or(0);
    let note = format!(
        "no-op: {} B of status with {} under way at most; copying: {} B with {}",
        most(&entries),
        active(&entries),
        most(&steady),
        active(&steady)
    );
    Ok((most(&entries).max(most(&steady)), writes, note))
}

/// A thousand shards under way for a while, each of which takes seconds; writes of status a second.
async fn steady(place: &Place) -> Result<(Vec<Entry>, f64)> {
    let mut manifest = ours::copy(BYTES_PER_SHARD, WORKERS, SLOTS);
    manifest["spec"]["workers"]["bytesPerSecond"] = "256Ki".into();
    manifest["spec"]["checkpoint"] = json!({"periodSeconds": 1, "bytes": "1Mi"});
    let job = place.apply(manifest).await?;
    let diary = place.diary(&job).await?;
    let many = |status: &_| (shards(status).active >= ACTIVE).then_some(());
    job.wait("a thousand shards under way", LIMIT, many).await?;
    // From just after a write: a window that begins anywhere may hold one more than its seconds.
    let seen = diary.so_far().len();
    let (asked, newer) = (Instant::now(), |_: &_| diary.so_far().len() > seen);
    diary.wait("another status", asked, LIMIT, newer).await?;
    let (before, start) = (place.cluster.api_server_counts().await?, Instant::now());
    time::sleep(STEADY).await;
    let after = place.cluster.api_server_counts().await?;
    let a_second = (after.status_writes() - before.status_writes()) / start.elapsed().as_secs_f64();
    let entries = diary.close().await?;
    let still = entries.last().is_some_and(|last| shards(&last.status).active >= ACTIVE / 2);
    ensure(still, || "a thousand shards were not under way for as long as writes were counted".into())?;
    job.delete().await?;
    let deleted = Instant::now();
    while job.exists().await? {
        ensure(deleted.elapsed() < LIMIT, || "the job was not gone two minutes after it was deleted".into())?;
        time::sleep(LOOK).await;
    }
    Ok((entries, a_second))
}

/// The most memory that the operator which leads has resident, until nobody waits for it any more.
async fn most_memory(cluster: Cluster, mut stopped: watch::Receiver<()>) -> Result<u64> {
    let leader = cluster.leader().await?.ok_or("no operator leads")?;
    let mut most = 0;
    loop {
        most = most.max(process::resident(&leader)?);
        // The sender is dropped when both jobs are over.
        if time::timeout(LOOK, stopped.changed()).await.is_ok() {
            return Ok(most);
        }
    }
}
