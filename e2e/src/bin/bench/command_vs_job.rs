//! Shards of a shell line beside an Indexed Job of the same image and command: there each index is a pod, here each shard is
//! a process.

use std::time::Instant;

use hyperflow_e2e::{Result, image::test_image};
use serde_json::json;

use crate::{
    bench::Bench,
    indexed_job::IndexedJob,
    ours, peers,
    row::{Of, Reach, Row, Sample},
};

static ROW: Row = Row { name: "command_vs_job", unit: "shards/s", reach: Reach::Times(150.0), of: Of::Median };

/// The line: a shell that does nothing more.
pub const LINE: &str = ":";
/// Two thousand are over before status, which is written once a second, has spoken of them three times.
const SHARDS: u32 = 10_000;
const WORKERS: u32 = 2;
const SLOTS: u32 = 2;
/// Indexes of the peer, all at a time: more pods than that crowd two nodes.
const INDEXES: i32 = 40;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let ours = async {
        bench.within(async |place| ours::run_unstored(place, ours::command(LINE, SHARDS, WORKERS, SLOTS)).await).await
    };
    let (ours, peer) = bench.in_turn(ours, indexes(bench)).await;
    let (taken, _) = ours?;
    let ours = vec![taken.shards / taken.seconds];
    Ok(vec![Sample { row: &ROW, ours, peer: peers::measured("Indexed Job", peer), note: taken.note }])
}

/// Indexes a second, from the Job's creation to its completion.
async fn indexes(bench: &Bench) -> Result<f64> {
    bench
        .within(async |place| {
            let start = Instant::now();
            let job = IndexedJob::create(place, INDEXES, &test_image("busybox"), json!(["sh", "-c", LINE])).await?;
            job.complete().await?;
            Ok(f64::from(INDEXES) / start.elapsed().as_secs_f64())
        })
        .await
}
