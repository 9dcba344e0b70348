//! There is no room for all copies: as many as fit are kept, people are told, and the job does without the rest.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, ensure, oracle};
use serde_json::json;

use super::{gated, open_gate, told};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 32;
const LIMIT: Duration = Duration::from_secs(90);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", SHARDS as usize * MIB, 93)?;
    let mut manifest = gated("full", 2, 2);
    manifest["spec"]["blocks"]["sizeLimit"] = json!("8Mi");
    let job = place.apply(manifest).await?;
    told(place, "BlockStoreFull", LIMIT).await?;
    let few = |status: &ShardJobStatus| status.blocks.clone().filter(|blocks| blocks.under_replicated > 0);
    let (lacking, _) = job.wait("status to say that copies are lacking", LIMIT, few).await?;
    let kept = place.replicas(&job).await?;
    let bytes = |node: &str| kept.iter().filter(|it| it.node == node).map(|it| it.bytes).sum::<u64>();
    for node in place.cluster.nodes().await? {
        ensure(bytes(&node) <= 8 * MIB as u64, || format!("{} bytes on {node}: {kept:?}", bytes(&node)))?;
    }
    ensure(!kept.is_empty(), || "nothing was kept".into())?;
    println!("     {} replicas kept, {} groups with too few", kept.len(), lacking.under_replicated);
    open_gate(place)?;
    let status = job.complete(LIMIT).await?;
    oracle::check_copy(&input, &place.path("out"), SHARDS)?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))
}
