//! Bytes that move when a node comes back with one block in a hundred of another version, for each byte that was stale.

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, job::Job};
use std::time::Duration;

use crate::{
    bench::Bench,
    ours,
    row::{Of, Peer, Reach, Row, Sample},
};

static ROW: Row = Row { name: "returned_node", unit: "x stale", reach: Reach::Within(1.1), of: Of::Most };

const MIB: usize = 1 << 20;
const SHARDS: u32 = 300;
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
    let repair = async {
        place.cluster.harm(&["start-node", &node]).await?;
        place.cluster.mended().await
    };
    let (stale, all) = finally(spoil(place, &job, &node), repair).await?;
    place.replicated(&job, SHARDS, 2, &[], ours::LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let moved = place.copied_on(&node).await?;
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
