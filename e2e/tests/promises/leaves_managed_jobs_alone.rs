//! A job of another controller is left alone: no status, no pods, no finalizer. One that names this operator is served, and
//! nobody changes hands.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, ensure, job};
use kube::ResourceExt;
use serde_json::json;

/// An operator that would serve the job has done so long before.
const WATCHED: Duration = Duration::from_secs(8);

pub async fn keeps(place: &Place) -> Result {
    let managed = |name: &str, by: &str| {
        let mut manifest = super::copy(name, "1Mi", "1G", 1, 1);
        manifest["spec"]["managedBy"] = by.into();
        manifest
    };
    place.write_input("input", 1 << 20, 63)?;
    let others = place.apply(managed("others", "acme.example/shards")).await?;
    let ours = place.apply(managed("ours", "hyperflow.dev/shardjob-controller")).await?;
    ours.complete(Duration::from_secs(60)).await?;

    let start = Instant::now();
    while start.elapsed() < WATCHED {
        let object = others.get().await?;
        let finalizers = object.finalizers();
        ensure(finalizers.is_empty(), || format!("finalizers on another's job: {finalizers:?}"))?;
        let status = object.status.unwrap_or_default();
        ensure(status.observed_generation == Some(-1) && status.conditions.is_empty(), || {
            format!("the status of another's job was written: {status:?}")
        })?;
        let pods = place.workers().await?;
        let of_it = pods.iter().find(|pod| pod.name_any().starts_with("others-"));
        ensure(of_it.is_none(), || format!("a pod of another's job: {of_it:?}"))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for by in [json!("hyperflow.dev/shardjob-controller"), json!(null)] {
        let change = others.patch(json!({"spec": {"managedBy": by}})).await;
        let said = change.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(said.contains("spec.managedBy") && said.contains("is immutable"), || format!("{by}: said '{said}'"))?;
    }
    let status = others.status().await?;
    ensure(!job::has(&status, "Reconciling"), || format!("{status:?}"))?;
    others.delete().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure(!others.exists().await?, || "another's job waits for something after its deletion".into())
}
