//! The source is away, and so is the worker that has the only copies of some shards: these wait for it, the others are done
//! meanwhile, and the job does not fail.

use std::{fs, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    fault::finally,
    job::{shards, whole_blocks},
    oracle,
};
use k8s_openapi::api::core::v1::Pod;

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);
/// The worker is away for less than what makes its copies count as lost.
const AWAY: Duration = Duration::from_secs(25);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 99)?;
    let job = place.apply(gated("waits", 2, 1)).await?;
    job.wait("a copy of every group", LIMIT, whole_blocks).await?;
    let victim = place.workers().await?.pop().ok_or("no worker")?;
    let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let alone = place.replicas(&job).await?.iter().filter(|it| Some(&it.node) == on(&victim).as_ref()).count();
    ensure(alone > 2, || format!("{alone} blocks are with the worker that goes away"))?;

    place.cluster.freeze(&victim).await?;
    // Not removed: moved away, as when a file server is gone.
    let away = place.path("away");
    fs::rename(place.path("in"), &away)?;
    open_gate(place)?;
    let missed = |status: &ShardJobStatus| status.failures.iter().find(|sample| sample.reason == "NoInput").cloned();
    let missed = job.wait("a shard without its input", AWAY, missed);
    let (sample, took) = finally(missed, place.cluster.thaw(&victim)).await?;
    println!("     after {took:.1?}: {}", sample.message);

    let status = job.complete(LIMIT).await?;
    ensure(shards(&status).succeeded == i32::try_from(SHARDS)?, || format!("{:?}", status.shards))?;
    oracle::check_copy(&away.join("input"), &place.path("out"), SHARDS).map(drop)
}
