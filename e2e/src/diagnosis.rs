//! What the cluster was doing when a promise broke.

use std::fmt::Write;

use hyperflow_api::ShardJob;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

use crate::cluster::{Cluster, Place};

/// Jobs, pods, events and the last words of workers and operators.
pub async fn diagnose(place: &Place) -> String {
    let client = &place.cluster.client;
    let mut text = String::new();
    let list = ListParams::default();
    if let Ok(jobs) = Api::<ShardJob>::namespaced(client.clone(), &place.namespace).list(&list).await {
        for job in jobs {
            let status = serde_json::to_string(&job.status).unwrap_or_default();
            let _ = writeln!(text, "job {}: {status}", job.name_any());
        }
    }
    if let Ok(events) = Api::<Event>::namespaced(client.clone(), &place.namespace).list(&list).await {
        for event in events {
            let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
            let of = event.regarding.and_then(|object| object.name).unwrap_or_default();
            let _ = writeln!(text, "event {of} {reason}: {note}");
        }
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &place.namespace);
    if let Ok(found) = pods.list(&list).await {
        for pod in found {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            let _ = writeln!(text, "pod {} {phase}", pod.name_any());
            last_words(&mut text, &pods, &pod.name_any(), 15).await;
        }
    }
    operators(&mut text, &place.cluster).await;
    text
}

async fn operators(text: &mut String, cluster: &Cluster) {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.operator_namespace);
    for pod in cluster.operator_pods().await.unwrap_or_default() {
        last_words(text, &api, &pod.name_any(), 40).await;
    }
}

async fn last_words(text: &mut String, pods: &Api<Pod>, name: &str, lines: i64) {
    for previous in [true, false] {
        let ask = LogParams { tail_lines: Some(lines), previous, ..LogParams::default() };
        if let Ok(log) = pods.logs(name, &ask).await {
            let which = if previous { " (before its restart)" } else { "" };
            let _ = writeln!(text, "log of {name}{which}:\n{log}");
        }
    }
}
