//! The peer that every cluster has: an Indexed Job, a pod for each index.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(300);

/// A job of the cluster's own.
pub struct IndexedJob {
    jobs: Api<Job>,
    pods: Api<Pod>,
    name: String,
    indexes: i32,
}

impl IndexedJob {
    /// Creates one that runs all its indexes at a time and never in a pod that failed.
    pub async fn create(place: &Place, indexes: i32, image: &str, args: Value) -> Result<Self> {
        let client = place.cluster.client.clone();
        let jobs: Api<Job> = Api::namespaced(client.clone(), &place.namespace);
        let restricted = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
            "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}
        });
        let job: Job = serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "peer"},
            "spec": {
                "completionMode": "Indexed", "completions": indexes, "parallelism": indexes,
                "template": {"spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "index", "image": image, "imagePullPolicy": "IfNotPresent", "args": args,
                        "securityContext": restricted
                    }]
                }}
            }
        }))?;
        let name = jobs.create(&PostParams::default(), &job).await?.name_any();
        Ok(Self { jobs, pods: Api::namespaced(client, &place.namespace), name, indexes })
    }

    /// Waits until all indexes have succeeded.
    pub async fn complete(&self) -> Result {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let status = self.jobs.get(&self.name).await?.status;
            if status.and_then(|status| status.succeeded) == Some(self.indexes) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("the Indexed Job did not end in five minutes".into())
    }

    /// Waits until a pod other than `lost` runs the index.
    pub async fn runs(&self, index: i32, lost: Option<&Pod>) -> Result<Pod> {
        let label = format!("batch.kubernetes.io/job-completion-index={index}");
        let list = ListParams::default().labels(&label);
        let start = Instant::now();
        loop {
            let wanted = |pod: &Pod| is_running(pod) && lost.is_none_or(|lost| lost.uid() != pod.uid());
            if let Some(pod) = self.pods.list(&list).await?.items.into_iter().find(wanted) {
                return Ok(pod);
            }
            ensure(start.elapsed() < LIMIT, || format!("no pod ran index {index} in five minutes"))?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_running(pod: &Pod) -> bool {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let running = |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
    statuses.any(|container| container.state.as_ref().is_some_and(running))
}
