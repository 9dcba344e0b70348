//! A job whose workers cannot run says why in the cluster's own words, and what to do; when that is done, it goes on by
//! itself. None of it ends the job.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Job},
};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

/// A volume is missed after twenty seconds, and a refused pod is asked for again after thirty.
const SAID: Duration = Duration::from_secs(45);
/// The kubelet looks for a volume again after half a minute by then, later after two.
const MENDED: Duration = Duration::from_secs(180);

pub async fn keeps(place: &Place) -> Result {
    let no_node = json!({"nodeSelector": {"example.com/place": "nowhere"}});
    let no_secret = json!({
        "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": true}]
    });
    let no_claim = json!({
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "nobody"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]
    });
    let nowhere = apply(place, "nowhere", no_node).await?;
    let keyless = apply(place, "keyless", no_secret).await?;
    let unbound = apply(place, "unbound", no_claim).await?;
    let node = "0 of 1 workers run: 0/";
    says(&nowhere, "Unschedulable", &[node, "didn't match", "nodeSelector", "add nodes"]).await?;
    says(&unbound, "VolumeNotReady", &["\"nobody\" not found", "PersistentVolumeClaim", "kubectl describe pod"])
        .await?;
    says(&keyless, "VolumeNotReady", &["keyless-", "Secret", "kubectl describe pod"]).await?;

    // A pod that cannot run makes way for one of the corrected spec.
    nowhere.patch(json!({"spec": {"workers": {"nodeSelector": null}}})).await?;
    nowhere.complete(MENDED).await?;
    unbound.patch(json!({"spec": {"workers": {"volumes": null, "volumeMounts": null}}})).await?;
    unbound.complete(MENDED).await?;
    // And what was missing may come.
    let secrets: Api<Secret> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    let keys = serde_json::from_value(json!({"metadata": {"name": "keys"}, "stringData": {"key": "value"}}))?;
    secrets.create(&PostParams::default(), &keys).await?;
    keyless.complete(MENDED).await?;
    without_quota(place).await
}

async fn without_quota(place: &Place) -> Result {
    let quotas: Api<ResourceQuota> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    let quota = json!({"metadata": {"name": "compute"}, "spec": {"hard": {"requests.cpu": "100m"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    // The quota counts once the controller has seen it.
    while quotas.get("compute").await?.status.is_none_or(|status| status.hard.is_none()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let poor = apply(place, "poor", json!({"resources": {"requests": {"cpu": "200m"}}})).await?;
    let words = ["0 of 1 workers run: ", "exceeded quota: compute", "ask for quota", "Trying again every 30 s."];
    says(&poor, "QuotaExceeded", &words).await?;
    ensure(place.workers().await?.is_empty(), || "there are pods beyond the quota".into())?;
    quotas.delete("compute", &DeleteParams::default()).await?;
    poor.complete(MENDED).await?;
    Ok(())
}

/// A job of four shards for one worker of this kind.
async fn apply(place: &Place, name: &str, workers: Value) -> Result<Job> {
    let mut manifest = job::manifest("numbers")?;
    manifest["metadata"]["name"] = name.into();
    manifest["spec"]["source"]["numbers"]["count"] = 4.into();
    manifest["spec"]["parallelism"] = 1.into();
    manifest["spec"]["workers"] = workers;
    place.apply(manifest).await
}

/// `WorkersAvailable` is False for this reason and in these words, and the job is not given up.
async fn says(job: &Job, reason: &str, words: &[&str]) -> Result {
    let said = |status: &ShardJobStatus| {
        let said = status.conditions.iter().find(|it| it.type_ == "WorkersAvailable")?;
        (said.status == "False" && said.reason == reason).then(|| (said.message.clone(), status.clone()))
    };
    let ((message, status), took) = job.wait(&format!("{reason} of {}", job.name), SAID, said).await?;
    println!("     {} said {reason} after {took:.1?}: {message}", job.name);
    for word in words {
        ensure(message.contains(word), || format!("'{message}' does not say '{word}'"))?;
    }
    let waits = status.conditions.iter().find(|it| it.type_ == "Reconciling").ok_or("no condition Reconciling")?;
    ensure(waits.status == "True" && waits.reason == "WaitingForWorker" && waits.message == message, || {
        format!("Reconciling says otherwise: {waits:?}")
    })?;
    ensure(!job::has(&status, "Stalled") && !job::has(&status, "Failed"), || format!("{:?}", status.conditions))
}
