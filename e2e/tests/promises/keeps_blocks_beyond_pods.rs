//! Copies on a volume that outlives pods: the next worker on it has them, and nothing is read from the source again. With the
//! job they go.

use std::{
    fs,
    time::{Duration, Instant},
};

use hyperflow_api::{ShardJobStatus, status::BlockCounts};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{shards, whole_blocks},
    oracle,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 91)?;
    let job = place.apply(on_a_claim()).await?;
    let (BlockCounts { kept_by, .. }, _) = job.wait("a copy of every group", LIMIT, whole_blocks).await?;
    ensure(kept_by == "Node", || {
        format!("a claim outlives pods, and status says that copies are kept by '{kept_by}'")
    })?;
    let first = place.workers().await?.into_iter().next().ok_or("no worker")?;
    let loaded = place.block_bytes().await?.loaded;
    ensure(loaded >= f64::from(SHARDS) * MIB as f64 * 0.8, || format!("{loaded} bytes loaded"))?;

    let start = Instant::now();
    place.cluster.delete(&first).await?;
    // Not removed: moved away, as when a file server is gone.
    let (input, away) = (place.path("in"), place.path("away"));
    fs::rename(&input, &away)?;
    let next = async {
        while place.workers().await?.iter().all(|pod| pod.uid() == first.uid()) || place.loaded_by_node().await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok::<_, hyperflow_e2e::Error>(())
    };
    tokio::time::timeout(LIMIT, next).await.map_err(|_| "there was no other worker in a minute")??;
    println!("     another worker {:.1?} after the first was deleted", start.elapsed());

    open_gate(place)?;
    let uid = job.get().await?.uid().ok_or("a job without UID")?;
    ensure(place.path(&uid).is_dir(), || format!("no copies in {}", place.path(&uid).display()))?;
    let nearly = |status: &ShardJobStatus| (shards(status).succeeded >= SHARDS as i32 / 2).then_some(());
    job.wait("half of the shards", LIMIT, nearly).await?;
    let moved = place.block_bytes().await?;
    ensure(moved.loaded + moved.copied == 0.0, || format!("copies that were there were made again: {moved:?}"))?;
    job.complete(LIMIT).await?;
    oracle::check_copy(&away.join("input"), &place.path("out"), SHARDS)?;
    let gone = async {
        while place.path(&uid).exists() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.map_err(|_| "copies are left of a job that is over".into())
}

/// One worker, whose copies are on a claim.
fn on_a_claim() -> Value {
    let mut manifest = gated("stays", 1, 1);
    manifest["spec"]["blocks"]["volumeName"] = json!("disk");
    if let Some(volumes) = manifest["spec"]["workers"]["volumes"].as_array_mut() {
        volumes.push(json!({"name": "disk", "persistentVolumeClaim": {"claimName": "data"}}));
    }
    manifest
}
