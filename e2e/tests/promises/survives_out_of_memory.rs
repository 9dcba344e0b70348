//! The kernel kills a worker for want of memory: its shards run again, and status calls it by its name.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, ensure, job, oracle};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde_json::json;

const MIB: usize = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 32 * MIB, 50)?;
    let mut manifest = super::copy("squeezed", "8Mi", "4Mi", 2, 1);
    manifest["spec"]["workers"]["resources"] = json!({"limits": {"memory": "128Mi"}});
    manifest["spec"]["failurePolicy"] = json!({"backoff": {"initialSeconds": 1}});
    let job = place.apply(manifest).await?;
    let under_way =
        |status: &ShardJobStatus| job::attempts(status).ok()?.into_iter().find(|attempt| attempt.checkpoint.is_some());
    let (attempt, _) = job.wait("a checkpoint", Duration::from_secs(60), under_way).await?;
    let victim = place.worker(&attempt.pod).await?;
    place.cluster.squeeze(&victim).await?;

    let sample = |status: &ShardJobStatus| status.failures.iter().find(|sample| sample.class == "OutOfMemory").cloned();
    let (sample, took) = job.wait("the class OutOfMemory", Duration::from_secs(30), sample).await?;
    println!("     out of memory in status {took:.1?} after it happened");
    ensure(sample.reason == "OOMKilled", || format!("{sample:?}"))?;
    let ended = last_end(&place.worker(&attempt.pod).await?);
    let killed = ended.as_ref().is_some_and(|end| end.reason.as_deref() == Some("OOMKilled"));
    ensure(killed, || format!("the kubelet knows of no kill for want of memory: {ended:?}"))?;

    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 4)?;
    // The only shard that the worker ran is charged, and named.
    let charged = sample.index.and_then(|index| u32::try_from(index).ok());
    let again = records.iter().any(|record| Some(record.index) == charged && record.attempt > 1);
    ensure(again, || format!("{sample:?}, but the shard it names did not run again: {records:?}"))
}

fn last_end(pod: &Pod) -> Option<ContainerStateTerminated> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
    let ended = container.state.and_then(|state| state.terminated);
    ended.or_else(|| container.last_state.and_then(|state| state.terminated))
}
