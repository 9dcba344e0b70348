//! There is no room for all copies, by the job's own limit or because the disk is full: as many as fit are kept, people are
//! told, and the job does without the rest.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, ensure, oracle};
use serde_json::{Value, json};

use super::{gated, open_gate, told};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 32;
const LIMIT: Duration = Duration::from_secs(90);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 93)?;
    let mut limited = gated("limited", 2, 2);
    limited["spec"]["blocks"]["sizeLimit"] = json!("8Mi");
    does_without(place, limited, 8 * MIB as u64).await?;
    let again = place.cluster.place("full_disk").await?;
    again.write_input("input", SHARDS as usize * MIB, 93)?;
    let done = does_without(&again, on_a_small_disk(), 8 * MIB as u64).await;
    again.remove().await?;
    done
}

/// A job whose limit is more than the disk has: ENOSPC is the first to say so.
fn on_a_small_disk() -> Value {
    let mut manifest = gated("full", 2, 2);
    manifest["spec"]["blocks"]["sizeLimit"] = json!("64Mi");
    manifest["spec"]["blocks"]["volumeName"] = json!("disk");
    if let Some(volumes) = manifest["spec"]["workers"]["volumes"].as_array_mut() {
        volumes.push(json!({"name": "disk", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}));
    }
    manifest
}

/// Not more than `room` is kept on a node.
async fn does_without(place: &Place, manifest: Value, room: u64) -> Result {
    let job = place.apply(manifest).await?;
    told(place, "BlockStoreFull", LIMIT).await?;
    let few = |status: &ShardJobStatus| status.blocks.clone().filter(|blocks| blocks.under_replicated > 0);
    let (lacking, _) = job.wait("status to say that copies are lacking", LIMIT, few).await?;
    let kept = place.replicas(&job).await?;
    let bytes = |node: &str| kept.iter().filter(|it| it.node == node).map(|it| it.bytes).sum::<u64>();
    for node in place.cluster.nodes().await? {
        ensure(bytes(&node) <= room, || format!("{} bytes on {node}: {kept:?}", bytes(&node)))?;
    }
    ensure(!kept.is_empty(), || "nothing was kept".into())?;
    println!("     {}: {} replicas kept, {} groups with too few", job.name, kept.len(), lacking.under_replicated);
    open_gate(place)?;
    let status = job.complete(LIMIT).await?;
    oracle::check_copy(&place.path("in/input"), &place.path("out"), SHARDS)?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))
}
