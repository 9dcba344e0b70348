//! A worker is evicted, and another makes room for a pod of higher priority: status calls both by their names, and no
//! shard is charged with them.

use std::{collections::BTreeSet, time::Duration};

use hyperflow_api::{ShardJobStatus, status::FailureSample};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    fault::finally,
    job::{self, Job},
    oracle,
};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
/// Something two nodes have one of, so that a pod that wants it disturbs the workers of this test and nobody else.
const SEAT: &str = "e2e.hyperflow.dev/seat";

pub async fn keeps(place: &Place) -> Result {
    let repair = async {
        seats(place, Value::Null).await?;
        remove_class(place).await
    };
    let test = async {
        seats(place, json!("1")).await?;
        add_class(place).await?;
        makes_room(place).await
    };
    finally(test, repair).await
}

async fn makes_room(place: &Place) -> Result {
    let input = place.write_input("input", 96 * MIB, 80)?;
    let mut manifest = super::copy("evicted", "4Mi", "4Mi", 2, 2);
    manifest["spec"]["workers"]["resources"] = json!({"limits": {SEAT: "1"}, "requests": {SEAT: "1"}});
    let job = place.apply(manifest).await?;

    let victim = a_busy_worker(place, &job).await?;
    place.cluster.evict(&victim).await?;
    let evicted = sample(&job, "Evicted").await?;
    ensure(evicted.reason == "EvictionByEvictionAPI", || format!("{evicted:?}"))?;
    // While a seat is free nobody has to go. A status that is a second old speaks of the victim yet.
    let uid = victim.uid().ok_or("a pod without UID")?;
    let both = |status: &ShardJobStatus| {
        let others = job::attempts(status).ok()?.into_iter().filter(|attempt| !uid.starts_with(&attempt.pod));
        (others.map(|attempt| attempt.pod).collect::<BTreeSet<_>>().len() == 2).then_some(())
    };
    job.wait("two others at work", Duration::from_secs(30), both).await?;

    let pods: Api<Pod> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(important(place))?).await?;
    let preempted = sample(&job, "Preempted").await?;
    ensure(preempted.reason == "PreemptionByScheduler", || format!("{preempted:?}"))?;
    pods.delete("important", &DeleteParams::default().grace_period(0)).await?;

    let status = job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 24)?;
    let charged: Vec<_> = records.iter().filter(|record| record.attempt > 1).collect();
    ensure(charged.is_empty(), || format!("shards were charged: {charged:?}"))?;
    let classes: Vec<&str> = status.failures.iter().map(|sample| sample.class.as_str()).collect();
    let only = ["Evicted", "Preempted"];
    ensure(only.iter().all(|class| classes.contains(class)) && classes.len() == 2, || format!("{:?}", status.failures))
}

async fn a_busy_worker(place: &Place, job: &Job) -> Result<Pod> {
    let busy =
        |status: &ShardJobStatus| job::attempts(status).ok()?.into_iter().find(|attempt| attempt.checkpoint.is_some());
    let (attempt, _) = job.wait("a checkpoint", Duration::from_secs(60), busy).await?;
    place.worker(&attempt.pod).await
}

async fn sample(job: &Job, class: &str) -> Result<FailureSample> {
    let says = |status: &ShardJobStatus| status.failures.iter().find(|sample| sample.class == class).cloned();
    let (sample, took) = job.wait(&format!("class {class}"), Duration::from_secs(30), says).await?;
    println!("     {class} in status after {took:.1?}");
    Ok(sample)
}

/// A pod that wants a seat, and may take one from those that matter less.
fn important(place: &Place) -> Value {
    let mut pod = super::idle("important");
    pod["spec"]["priorityClassName"] = json!(place.namespace);
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {SEAT: "1"}, "requests": {SEAT: "1"}});
    pod
}

/// Gives two nodes a seat each, as many as there are workers, or takes them away.
async fn seats(place: &Place, count: Value) -> Result {
    let nodes: Api<Node> = Api::all(place.cluster.client.clone());
    let status = json!({"status": {"capacity": {SEAT: count}, "allocatable": {SEAT: count}}});
    for node in place.cluster.nodes().await?.into_iter().take(2) {
        nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    Ok(())
}

async fn add_class(place: &Place) -> Result {
    let classes: Api<PriorityClass> = Api::all(place.cluster.client.clone());
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": place.namespace, "labels": {"hyperflow.dev/e2e": "true"}},
        "value": 1000, "globalDefault": false
    });
    let made = classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    ensure(made.name_any() == place.namespace, || "a PriorityClass of another name".into())
}

async fn remove_class(place: &Place) -> Result {
    let classes: Api<PriorityClass> = Api::all(place.cluster.client.clone());
    if classes.get_opt(&place.namespace).await?.is_some() {
        classes.delete(&place.namespace, &DeleteParams::default()).await?;
    }
    Ok(())
}
