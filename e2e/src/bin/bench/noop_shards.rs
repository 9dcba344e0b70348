//! No-op shards a second on the full path (TLS, lease, result, status) beside an Indexed Job, a pod for each index. This
//! is the cost of scheduling alone: neither side does anything.

use std::time::Instant;

use hyperflow_e2e::Result;

use crate::{
    bench::Bench,
    indexed_job::IndexedJob,
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "noop_shards", unit: "shards/s", reach: Reach::Times(5000.0), of: Of::Median };

/// As many as a job may have: fewer are over before status has been written twice.
pub const SHARDS: u32 = 1_000_000;
const WORKERS: u32 = 2;
const SLOTS: u32 = 16;
/// Indexes of the peer, all at a time: more pods than that crowd two nodes.
const INDEXES: i32 = 40;
/// Ends at once with `--version`, and is on the nodes.
const IMAGE: &str = "hyperflow.dev/worker:0.1.0";

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (ours, peer) = bench.in_turn(rate(bench), indexes(bench)).await;
    let (ours, note) = ours?;
    Ok(vec![Sample { row: &ROW, ours: vec![ours], peer: peers::measured("Indexed Job", peer), note }])
}

/// Our no-op shards a second.
pub async fn rate(bench: &Bench) -> Result<(f64, String)> {
    bench
        .within(async |place| {
            let (taken, _) = ours::run_unstored(place, ours::noop(SHARDS, WORKERS, SLOTS)).await?;
            Ok((taken.shards / taken.seconds, taken.note))
        })
        .await
}

/// Indexes a second, from the Job's creation to its completion: each needs its own pod, so there are none to be warm.
async fn indexes(bench: &Bench) -> Result<f64> {
    bench
        .within(async |place| {
            let start = Instant::now();
            let job = IndexedJob::create(place, INDEXES, IMAGE, serde_json::json!(["--version"])).await?;
            job.complete().await?;
            Ok(f64::from(INDEXES) / start.elapsed().as_secs_f64())
        })
        .await
}
