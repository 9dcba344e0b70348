//! The power of a node fails: every block that was there is copied again from those that have it, not from the source, and
//! the job ends right.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, job::Job, oracle};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 48;
/// Until a node counts as lost, as the local cluster has it, and time to copy.
const LIMIT: Duration = Duration::from_secs(30 + 60);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", SHARDS as usize * MIB, 95)?;
    let job = place.apply(gated("again", 3, 2)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    let node = job.busy_on_two(&place.cluster).await?;
    place.cluster.harm(&["stop-node", &node]).await?;
    let repair = async {
        place.cluster.harm(&["start-node", &node]).await?;
        place.cluster.mended().await
    };
    finally(goes_on_without(place, &job, &node), repair).await?;
    oracle::check_copy(&input, &place.path("out"), SHARDS).map(drop)
}

async fn goes_on_without(place: &Place, job: &Job, node: &str) -> Result {
    let lost = place.replicas(job).await?.iter().filter(|replica| replica.node == node).count();
    let before = place.block_bytes().await?;
    let took = place.replicated(job, SHARDS, 2, &[node.to_owned()], LIMIT).await?;
    let after = place.block_bytes().await?;
    let (copied, loaded) = ((after.copied - before.copied) / MIB as f64, (after.loaded - before.loaded) / MIB as f64);
    println!("     {lost} MiB lost with {node}, {copied:.1} MiB copied again and {loaded:.1} MiB loaded in {took:.1?}");
    ensure(lost > 0, || format!("{node} had no blocks"))?;
    ensure(loaded < 0.5, || format!("{loaded} MiB were read from the source"))?;
    ensure((copied - lost as f64).abs() < 0.5, || format!("{copied} MiB were copied for {lost} that were lost"))?;
    open_gate(place)?;
    job.complete(LIMIT).await.map(drop)
}
