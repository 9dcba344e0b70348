//! Bytes that move when a node comes back with one block in a hundred of another version, for each byte that was stale.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, job::Job, stores::loaded_since};

use crate::{
    bench::Bench,
    ours,
    row::{Of, Peer, Reach, Row, Sample},
};

static ROW: Row = Row { name: "returned_node", unit: "x stale", reach: Reach::Within(1.1), of: Of::Most };

const MIB: usize = 1 << 20;
const SHARDS: u32 = 300;
/// How long a node takes to call when it is back, and what is copied then to arrive.
const CALLS: Duration = Duration::from_secs(4);
/// Of a hundred.
const STALE: usize = 1;

pub async fn run(bench: &Bench) -> Result<Vec<Sample>> {
    let (moved, stale, all) = bench.within(returns).await?;
    let name = "a full copy, stated".into();
    let note = format!("{moved} bytes moved, {stale} were stale, {all} are on the node");
    let peer = Peer::Stated { name, value: all / stale };
    Ok(vec![Sample { row: &ROW, ours: vec![moved / stale], peer, note }])
}

async fn returns(place: &Place) -> Result<(f64, f64, f64)> {
    place.write_input("input", SHARDS as usize * MIB, 99)?;
    let job = place.apply(ours::gated("1Mi", 3, Some(2))).await?;
    place.replicated(&job, SHARDS, 2, &[], ours::LIMIT).await?;
    let node = job.busy_on_two(&place.cluster).await?;
    let before = place.loaded_by_node().await?;
    let repair = async {
        place.cluster.harm(&["start-node", &node]).await?;
        place.cluster.mended().await
    };
    let (stale, all) = finally(spoil(place, &job, &node), repair).await?;
    let told = |status: &ShardJobStatus| {
        let whole = status.blocks.as_ref().is_some_and(|blocks| blocks.under_replicated == 0);
        whole.then_some(())
    };
    // The node says what is stale there as soon as it calls; until then nothing is.
    tokio::time::sleep(CALLS).await;
    job.wait("every group to have its copies", ours::LIMIT, told).await?;
    tokio::time::sleep(CALLS).await;
    let moved = loaded_since(&before, &place.loaded_by_node().await?, &node);
    place.write("go", b"")?;
    job.complete(ours::LIMIT).await?;
    Ok((moved, stale, all))
}

async fn spoil(place: &Place, job: &Job, node: &str) -> Result<(f64, f64)> {
    place.cluster.harm(&["stop-node", node]).await?;
    let replicas = place.replicas(job).await?;
    let here: Vec<_> = replicas.iter().filter(|replica| replica.node == node).collect();
    let (mut stale, all) = (0, here.iter().map(|replica| replica.bytes).sum::<u64>());
    for replica in here.iter().step_by(100 / STALE) {
        replica.make_stale()?;
        stale += replica.bytes;
    }
    ensure(stale > 0, || format!("{node} had no blocks"))?;
    Ok((stale as f64, all as f64))
}
