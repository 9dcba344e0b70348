//! Two of three nodes are lost at once: that is no reason to fill the third one's disk. Nothing is copied until one of
//! them is back; then every block is where it should be.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, job::Job, oracle};

use super::{gated, open_gate, told};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 24;
const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    let cluster = &place.cluster;
    let input = place.write_input("input", SHARDS as usize * MIB, 97)?;
    let job = place.apply(gated("paused", 3, 2)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    let leader = cluster.leader().await?.and_then(|pod| pod.spec?.node_name).ok_or("no operator leads")?;
    let lost: Vec<String> = cluster.nodes().await?.into_iter().filter(|node| *node != leader).collect();
    ensure(lost.len() == 2, || format!("three nodes are needed: {lost:?} and {leader}"))?;
    for node in &lost {
        cluster.harm(&["stop-node", node]).await?;
    }
    let repair = async {
        for node in &lost {
            cluster.harm(&["start-node", node]).await?;
        }
        cluster.mended().await
    };
    finally(is_paused(place), repair).await?;
    let took = place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    told(place, "ReplicationResumed", LIMIT).await?;
    // The pool has too many pods now. Those with the copies are not the ones that go.
    tokio::time::sleep(Duration::from_secs(5)).await;
    place.replicated(&job, SHARDS, 2, &[], Duration::from_secs(1)).await?;
    println!("     two copies of every block again {took:.1?} after the nodes were back");
    ends_right(place, &job, &input).await
}

async fn is_paused(place: &Place) -> Result {
    told(place, "ReplicationPaused", LIMIT).await?;
    let before = place.block_bytes().await?;
    // Longer than what makes a node lost.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let after = place.block_bytes().await?;
    ensure(after.copied <= before.copied, || format!("copied meanwhile: {before:?}, {after:?}"))
}

async fn ends_right(place: &Place, job: &Job, input: &std::path::Path) -> Result {
    open_gate(place)?;
    job.complete(LIMIT).await?;
    oracle::check_copy(input, &place.path("out"), SHARDS).map(drop)
}
