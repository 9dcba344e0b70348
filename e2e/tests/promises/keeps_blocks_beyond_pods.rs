//! Copies on a volume that outlives pods: the next worker on it has them, and nothing is read from the source again. With the
//! job they go.

use std::{
    fs,
    time::{Duration, Instant},
};

use hyperflow_api::{ShardJobStatus, status::BlockCounts};
use hyperflow_e2e::{Result, cluster::Place, ensure, oracle};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 91)?;
    let job = place.apply(on_a_claim()).await?;
    let whole = |status: &ShardJobStatus| {
        status.blocks.clone().filter(|blocks| blocks.groups > 0 && blocks.under_replicated == 0)
    };
    let (BlockCounts { kept_by, .. }, _) = job.wait("a copy of every group", LIMIT, whole).await?;
    ensure(kept_by == "Node", || {
        format!("a claim outlives pods, and status says that copies are kept by '{kept_by}'")
    })?;
    let first = place.workers().await?.into_iter().next().ok_or("no worker")?;
    let loaded = place.block_bytes().await?.loaded;
    ensure(loaded >= f64::from(SHARDS) * MIB as f64 * 0.8, || format!("{loaded} bytes loaded"))?;

    place.cluster.delete(&first).await?;
    let start = Instant::now();
    let (input, away) = (place.path("in"), place.path("away"));
    let lacking = |status: &ShardJobStatus| status.blocks.clone().filter(|blocks| blocks.under_replicated > 0);
    job.wait("status to say that nobody has the copies", LIMIT, lacking).await?;
    // Not removed: moved away, as when a file server is gone.
    fs::rename(&input, &away)?;
    job.wait("a copy of every group with the next pod", LIMIT, whole).await?;
    let next = place.workers().await?.into_iter().next().ok_or("no worker")?;
    ensure(next.uid() != first.uid(), || "the pod is the one that was deleted".into())?;
    let moved = place.block_bytes().await?;
    println!("     the next pod has all copies {:.1?} after the first was deleted: {moved:?}", start.elapsed());
    ensure(moved.loaded + moved.copied == 0.0, || format!("copies that were there were made again: {moved:?}"))?;

    open_gate(place)?;
    let uid = job.get().await?.uid().ok_or("a job without UID")?;
    ensure(place.path(&uid).is_dir(), || format!("no copies in {}", place.path(&uid).display()))?;
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
