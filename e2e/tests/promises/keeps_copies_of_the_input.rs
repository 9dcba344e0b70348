//! Copies of the input lie on the disks of as many nodes as were asked for, shards go where theirs are, and when the
//! source is away the job finishes from them.

use std::{fs, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{has, shards},
    oracle,
};
use serde_json::json;

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 48;
const REPLICAS: usize = 2;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 90)?;
    let job = place.apply(gated("copies", 3, REPLICAS)).await?;
    let took = place.replicated(&job, SHARDS, REPLICAS, &[], LIMIT).await?;
    let whole = |status: &ShardJobStatus| {
        status.blocks.clone().filter(|blocks| blocks.groups > 0 && blocks.under_replicated == 0)
    };
    let (blocks, _) = job.wait("status to say that all is replicated", LIMIT, whole).await?;
    ensure((blocks.groups, &*blocks.kept_by) == (48, "Pod"), || format!("{blocks:?}"))?;
    let moved = place.block_bytes().await?;
    let bytes = f64::from(SHARDS) * MIB as f64;
    println!("     {SHARDS} MiB on {REPLICAS} nodes each {took:.1?} after apply; {moved:?}");
    ensure(moved.loaded + moved.source <= 1.2 * bytes, || format!("the source was read more than once: {moved:?}"))?;

    // Not removed: moved away, as when a file server is gone.
    let (input, away) = (place.path("in"), place.path("away"));
    fs::rename(&input, &away)?;
    open_gate(place)?;
    let read = async {
        loop {
            let status = job.status().await?;
            let moved = place.block_bytes().await?;
            let counts = shards(&status);
            if counts.succeeded * 10 >= counts.total * 9 {
                return Ok::<_, hyperflow_e2e::Error>(moved);
            }
            ensure(!has(&status, "Failed"), || format!("{:?}", status.conditions))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let moved = tokio::time::timeout(LIMIT, read).await.map_err(|_| "the shards did not end in a minute")??;
    let nodes = place.cluster.nodes().await?.len();
    let chance = REPLICAS as f64 / nodes as f64;
    println!(
        "     read locally: {:.0} % of the bytes; without a look at where blocks are, {:.0} %",
        100.0 * moved.share_local(),
        100.0 * chance
    );
    let status = job.complete(LIMIT).await?;
    oracle::check_copy(&away.join("input"), &place.path("out"), SHARDS)?;
    ensure(moved.share_local() > chance, || format!("shards do not go where their blocks are: {moved:?}"))?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))?;
    let notes = status.recovery.map(|notes| json!(notes.blocks));
    ensure(notes == Some(json!("")), || format!("notes of blocks are left: {notes:?}"))
}
