//! From the caches to what the core sees. Reads only.

use hyperflow_api::{ShardJob, ids::JobUid};
use hyperflow_core::coordinator::{Pod as Seen, Seen as SeenJob};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use kube::{Resource, ResourceExt, runtime::reflector::Store};

/// What a container that waits for one of these will not get over by itself.
const TROUBLES: [&str; 6] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];

/// No node takes the pod. The other reason, a scheduling gate, is someone's wish.
const UNSCHEDULABLE: &str = "Unschedulable";

/// The resource, as the core takes it. None for an object that was never stored.
#[must_use]
pub fn job(job: &ShardJob) -> Option<SeenJob> {
    Some(SeenJob {
        uid: JobUid(job.uid()?),
        namespace: job.namespace()?,
        name: job.metadata.name.clone()?,
        generation: job.metadata.generation.unwrap_or(0),
        spec: job.spec.clone(),
        status: job.status.clone().unwrap_or_default(),
        deleting: job.metadata.deletion_timestamp.is_some(),
        abandoned: false,
    })
}

/// All pods of a job's pool, by name.
#[must_use]
pub fn pods(cache: &Store<Pod>, namespace: &str, job: &JobUid) -> Vec<Seen> {
    let of_job = |pod: &Pod| pod.metadata.namespace.as_deref() == Some(namespace) && belongs(pod, job);
    let mut pods: Vec<Seen> = cache.state_filter(of_job).iter().map(|pod| pod_seen(pod)).collect();
    // The cache has no order; equal pools must look equal.
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// A pod counts only if the job's UID is that of its controller: anyone may forge a label.
#[must_use]
pub fn belongs(pod: &Pod, job: &JobUid) -> bool {
    pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true) && owner.uid == job.0 && owner.kind == ShardJob::kind(&()) && {
            owner.api_version.split('/').next() == Some(&*ShardJob::group(&()))
        }
    })
}

/// Leaves of a pod what is read here: thousands of pods are kept in memory.
pub fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = pod.spec.take() {
        pod.spec = Some(PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    }
    if let Some(status) = pod.status.take() {
        let PodStatus { phase, conditions, container_statuses, .. } = status;
        pod.status = Some(PodStatus { phase, conditions, container_statuses, ..PodStatus::default() });
    }
}

fn pod_seen(pod: &Pod) -> Seen {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    Seen {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        leaving: pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")),
        trouble: status.and_then(trouble),
        disruption: None,
        restarts: 0,
        ended: None,
    }
}

fn trouble(status: &PodStatus) -> Option<(String, String)> {
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| TROUBLES.contains(&reason.as_str()))?;
        Some((reason, waiting.message.clone().unwrap_or_default()))
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        let mut refused = conditions.filter(|it| it.type_ == "PodScheduled" && it.status == "False");
        let condition = refused.find(|it| it.reason.as_deref() == Some(UNSCHEDULABLE))?;
        Some((UNSCHEDULABLE.into(), condition.message.clone().unwrap_or_default()))
    };
    waiting.or_else(unscheduled)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl Fn(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "copy-w0", "namespace": "default", "uid": "pod-1",
                "annotations": {"a": "b"}, "managedFields": [],
                "ownerReferences": [{
                    "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "name": "copy", "uid": "job-1",
                    "controller": true
                }]
            },
            "spec": {"nodeName": "node-1", "containers": [{"name": "worker"}]},
            "status": {"phase": "Running"}
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn job_uid() -> JobUid {
        JobUid("job-1".into())
    }

    #[test]
    fn a_pod_of_the_job_is_seen_with_its_node() {
        let pod = pod(|_| {});
        assert!(belongs(&pod, &job_uid()));
        let expected = Seen {
            name: "copy-w0".into(),
            uid: "pod-1".into(),
            node: Some("node-1".into()),
            leaving: false,
            trouble: None,
            disruption: None,
            restarts: 0,
            ended: None,
        };
        assert_eq!(pod_seen(&pod), expected);
    }

    #[test]
    fn a_label_or_a_mere_owner_makes_no_worker() {
        for (pointer, value) in [
            ("/metadata/ownerReferences/0/uid", json!("job-2")),
            ("/metadata/ownerReferences/0/controller", json!(false)),
            ("/metadata/ownerReferences/0/kind", json!("Job")),
            ("/metadata/ownerReferences/0/apiVersion", json!("example.com/v1")),
            ("/metadata/ownerReferences", json!([])),
        ] {
            let forged = pod(|pod| {
                pod["metadata"]["labels"] = json!({"hyperflow.dev/shardjob-uid": "job-1"});
                *pod.pointer_mut(pointer).unwrap() = value.clone();
            });
            assert!(!belongs(&forged, &job_uid()), "{pointer}");
        }
    }

    #[test]
    fn a_pod_that_ends_is_leaving() {
        assert!(pod_seen(&pod(|pod| pod["status"]["phase"] = json!("Failed"))).leaving);
        let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(pod_seen(&pod(deleted)).leaving);
    }

    #[test]
    fn trouble_is_what_will_not_pass_by_itself() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "no such image"}});
            let container = json!({
                "name": "worker", "image": "w", "imageID": "", "ready": false, "restartCount": 0, "state": state
            });
            pod_seen(&pod(|pod| pod["status"]["containerStatuses"] = json!([container.clone()]))).trouble
        };
        assert_eq!(waiting("ImagePullBackOff"), Some(("ImagePullBackOff".into(), "no such image".into())));
        assert_eq!(waiting("ContainerCreating"), None);
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"
        });
        let unscheduled = pod(|pod| pod["status"]["conditions"] = json!([condition.clone()]));
        assert_eq!(pod_seen(&unscheduled).trouble, Some(("Unschedulable".into(), "0/2 nodes are available".into())));
    }

    #[test]
    fn trimming_keeps_all_that_is_read() {
        let whole = pod(|_| {});
        let mut trimmed = whole.clone();
        trim(&mut trimmed);
        assert_eq!(pod_seen(&trimmed), pod_seen(&whole));
        assert!(trimmed.metadata.annotations.is_none());
        assert!(trimmed.spec.unwrap().containers.is_empty());
    }
}
