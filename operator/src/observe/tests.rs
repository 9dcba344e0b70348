//! What the API server says, and what the core is told of it.

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
        zone: None,
        leaving: false,
        trouble: None,
        made_of: None,
        disruption: None,
        ends: 0,
        ended: None,
    };
    assert_eq!(pod_seen(&pod), expected);
}

#[test]
fn the_zone_of_the_node_is_read_from_the_pod() {
    let labelled = |zone: &str| pod(|pod| pod["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": zone}));
    assert_eq!(pod_seen(&labelled("eu-1a")).zone.as_deref(), Some("eu-1a"));
    assert_eq!(pod_seen(&labelled("")).zone, None, "an empty label says nothing");
    let mut trimmed = labelled("eu-1a");
    trim(&mut trimmed);
    assert_eq!(pod_seen(&trimmed), pod_seen(&labelled("eu-1a")));
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

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "PreemptionByScheduler", "message": "make room"})
}

#[test]
fn a_disruption_is_what_the_condition_says() {
    let disruption =
        |conditions: Value| pod_seen(&pod(|pod| pod["status"]["conditions"] = conditions.clone())).disruption;
    let expected = Some(("PreemptionByScheduler".into(), "make room".into()));
    assert_eq!(disruption(json!([condition("Ready", "True"), condition(DISRUPTION, "True")])), expected);
    assert_eq!(disruption(json!([condition(DISRUPTION, "False")])), None);
    assert_eq!(disruption(json!([condition("Ready", "True")])), None);
}

#[test]
fn a_pod_that_has_failed_may_say_why_in_its_status() {
    let disruption = |status: Value| pod_seen(&pod(|pod| pod["status"] = status.clone())).disruption;
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
    assert_eq!(disruption(evicted), Some(("Evicted".into(), "low on memory".into())));
    assert_eq!(disruption(json!({"phase": "Failed"})), None, "its container failed");
    assert_eq!(disruption(json!({"phase": "Pending", "reason": "NodeLost"})), None);
    let conditions = json!([condition(DISRUPTION, "True")]);
    let both = json!({"phase": "Failed", "reason": "Evicted", "conditions": conditions});
    assert_eq!(disruption(both), Some(("PreemptionByScheduler".into(), "make room".into())), "the condition is finer");
}

fn container(state: &Value, last: &Value) -> Value {
    json!({
        "name": "worker", "image": "w", "imageID": "", "ready": false, "restartCount": 3,
        "state": state, "lastState": last
    })
}

#[test]
fn ends_are_counted_and_the_last_one_is_told() {
    let end = |code: i32, reason: &str, more: Value| {
        let mut end = json!({"exitCode": code, "reason": reason});
        end.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"terminated": end})
    };
    let seen = |state: &Value, last: &Value| {
        pod_seen(&pod(|pod| pod["status"]["containerStatuses"] = json!([container(state, last)])))
    };
    let (running, oom) = (json!({"running": {}}), end(137, "OOMKilled", json!({})));
    let again = seen(&running, &oom);
    assert_eq!((again.ends, again.ended), (3, Some(("OOMKilled".into(), "exit code 137".into()))));
    let failed = end(2, "Error", json!({"signal": 9, "message": "no space left\n"}));
    let now = seen(&failed, &oom);
    assert_eq!(now.ends, 4, "it is not running");
    assert_eq!(
        now.ended,
        Some(("Error".into(), "exit code 2, signal 9: no space left".into())),
        "the present end counts"
    );
    assert_eq!(seen(&running, &json!({})).ended, None);
    assert_eq!(pod_seen(&pod(|_| {})).ends, 0, "no container has started yet");
}

#[test]
fn trimming_keeps_all_that_is_read() {
    let whole = pod(|pod| {
        let terminated = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let containers = json!([container(&terminated, &json!({}))]);
        pod["status"] = json!({
            "phase": "Failed", "reason": "Evicted", "message": "low on memory", "containerStatuses": containers
        });
    });
    assert!(pod_seen(&whole).disruption.is_some() && pod_seen(&whole).ended.is_some());
    let mut trimmed = whole.clone();
    trim(&mut trimmed);
    assert_eq!(pod_seen(&trimmed), pod_seen(&whole));
    assert!(trimmed.metadata.annotations.is_none());
    assert!(trimmed.spec.unwrap().containers.is_empty());
}
