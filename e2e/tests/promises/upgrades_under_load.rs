//! `helm upgrade` and `helm rollback` of both charts in the middle of a job, the schema first: the job goes on, no worker
//! notices more than a new session, nothing runs twice.

use std::{fs, time::Duration};

use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    command::run,
    control::restarts,
    diary::term,
    ensure,
    fault::finally,
    job::{self, shards},
    oracle,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

const MIB: usize = 1 << 20;
const DEFINITION: &str = "shardjobs.hyperflow.dev";
const FIELD: &str = "Most workers at a time, as in a Job.";
const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts");

pub async fn keeps(place: &Place) -> Result {
    // Two MiB a second in all: twice as long as two roll-outs take.
    let input = place.write_input("input", 48 * MIB, 21)?;
    let job = place.apply(super::copy("upgraded", "1Mi", "2Mi", 2, 2)).await?;
    let some_done = |status: &_| (shards(status).succeeded >= 3).then(|| term(status));
    let (before, _) = job.wait("three shards done", Duration::from_secs(60), some_done).await?;
    let workers = place.workers().await?;

    let cluster = &place.cluster;
    let (program, schema) = (cluster.revision("hyperflow").await?, cluster.revision("hyperflow-crds").await?);
    finally(upgrade(place), roll_back(cluster, &program, &schema)).await?;

    let after = place.workers().await?;
    let status = job.status().await?;
    ensure(!job::has(&status, "Complete"), || "the job was over before the upgrade was".into())?;
    ensure(term(&status) > before, || "no other operator took the job over".into())?;
    let identities = |pods: &[Pod]| pods.iter().map(|pod| (pod.uid(), restarts(pod))).collect::<Vec<_>>();
    ensure(identities(&workers) == identities(&after), || format!("workers were {workers:?}, now {after:?}"))?;
    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 48)?;
    let again: Vec<_> = records.iter().filter(|record| record.found || record.attempt > 1).collect();
    ensure(again.is_empty(), || format!("shards ran again though their workers lived: {again:?}"))
}

/// Both charts as in the next version: another word in the schema, another annotation on the operator's pods.
async fn upgrade(place: &Place) -> Result {
    let mark = format!("Seen by {}.", place.namespace);
    let crds = place.path("crds");
    run("cp", &["-r", &format!("{CHARTS}/hyperflow-crds"), &crds.display().to_string()]).await?;
    let file = crds.join("files").join(format!("{DEFINITION}.yaml"));
    let text = fs::read_to_string(&file)?;
    ensure(text.contains(FIELD), || format!("the schema does not say '{FIELD}'"))?;
    fs::write(&file, text.replace(FIELD, &format!("{FIELD} {mark}")))?;

    let cluster = &place.cluster;
    cluster.helm(&["upgrade", "hyperflow-crds", &crds.display().to_string(), "--reset-then-reuse-values"]).await?;
    ensure(definition().await?.contains(&mark), || "the schema was not upgraded".into())?;
    let before = operators(cluster).await?;
    let annotation = format!("podAnnotations.hyperflow\\.dev/e2e={}", place.namespace);
    let chart = format!("{CHARTS}/hyperflow");
    cluster.helm(&["upgrade", "hyperflow", &chart, "--reset-then-reuse-values", "--set-string", &annotation]).await?;
    let kept: Vec<_> = operators(cluster).await?.into_iter().filter(|uid| before.contains(uid)).collect();
    ensure(kept.is_empty(), || format!("these operators were not replaced: {kept:?}"))
}

async fn roll_back(cluster: &Cluster, program: &str, schema: &str) -> Result {
    cluster.helm(&["rollback", "hyperflow", program]).await?;
    cluster.helm(&["rollback", "hyperflow-crds", schema]).await?;
    let definition = definition().await?;
    ensure(!definition.contains("Seen by"), || "the schema was not rolled back".into())?;
    cluster.mended().await
}

async fn definition() -> Result<String> {
    run("kubectl", &["get", "customresourcedefinition", DEFINITION, "--output", "json"]).await
}

/// UIDs of the operators that are not on their way out.
async fn operators(cluster: &Cluster) -> Result<Vec<String>> {
    let mut pods = cluster.operator_pods().await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods.iter().filter_map(ResourceExt::uid).collect())
}
