//! From the caches to what the core sees. Reads only.

use hyperflow_api::{ShardJob, WORKERS_LABEL, ids::JobUid};
use hyperflow_core::coordinator::{Pod as Seen, STARTING, Seen as SeenJob};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodSpec, PodStatus};
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

/// False as long as the pod has no volumes and no network. Pulling an image comes after.
const READY_TO_START: &str = "PodReadyToStartContainers";

/// No node takes the pod. The other reason, a scheduling gate, is someone's wish.
const UNSCHEDULABLE: &str = "Unschedulable";

/// A pod that somebody ends says by this condition who and why.
const DISRUPTION: &str = "DisruptionTarget";

/// Since 1.35, Kubernetes copies this label of the node to a pod that it binds (admission plugin PodTopologyLabels).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The resource, as the core takes it; whether its namespace goes too is not in it. None for an object that was never
/// stored.
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
        let PodStatus { phase, conditions, init_container_statuses, container_statuses, reason, message, .. } = status;
        pod.status = Some(PodStatus {
            phase,
            conditions,
            init_container_statuses,
            container_statuses,
            reason,
            message,
            ..PodStatus::default()
        });
    }
}

fn pod_seen(pod: &Pod) -> Seen {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    Seen {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        zone: pod.labels().get(ZONE_LABEL).filter(|zone| !zone.is_empty()).cloned(),
        made_of: pod.labels().get(WORKERS_LABEL).cloned(),
        leaving: pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")),
        trouble: status.and_then(trouble),
        disruption: status.and_then(disruption),
        ends: status.map_or(0, ends),
        ended: status.and_then(ended),
    }
}

fn trouble(status: &PodStatus) -> Option<(String, String)> {
    let mut conditions = status.conditions.iter().flatten();
    let unprepared = conditions.any(|it| it.type_ == READY_TO_START && it.status == "False");
    let tells = |reason: &str| TROUBLES.contains(&reason) || (unprepared && STARTING.contains(&reason));
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = containers.into_iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| tells(reason))?;
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

/// Who ends the pod and why. A kubelet that evicts, or a node that shut down, may say so in the status itself only.
fn disruption(status: &PodStatus) -> Option<(String, String)> {
    let mut conditions = status.conditions.iter().flatten();
    let target = conditions.find(|it| it.type_ == DISRUPTION && it.status == "True");
    if let Some(target) = target {
        return Some((target.reason.clone().unwrap_or_default(), target.message.clone().unwrap_or_default()));
    }
    let reason = status.reason.clone().filter(|_| status.phase.as_deref() == Some("Failed"))?;
    Some((reason, status.message.clone().unwrap_or_default()))
}

/// How often the container has ended: as often as it was started again, and once more while it is not running.
fn ends(status: &PodStatus) -> u32 {
    let counts = status.container_statuses.iter().flatten().map(|container| {
        let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
        let ended = container.state.iter().chain(&container.last_state).any(|state| state.terminated.is_some());
        u32::try_from(container.restart_count).unwrap_or(0) + u32::from(ended && !running)
    });
    counts.fold(0, u32::saturating_add)
}

/// How the container ended last: now, or before it was started again.
fn ended(status: &PodStatus) -> Option<(String, String)> {
    status.container_statuses.iter().flatten().find_map(|container| {
        let states = [container.state.as_ref(), container.last_state.as_ref()];
        let end = states.into_iter().flatten().find_map(|state| state.terminated.as_ref())?;
        Some((end.reason.clone().unwrap_or_default(), describe(end)))
    })
}

/// `exit code 137, signal 9: what the kubelet says`, as far as it is known.
fn describe(end: &ContainerStateTerminated) -> String {
    let signal =
        end.signal.filter(|signal| *signal != 0).map(|signal| format!(", signal {signal}")).unwrap_or_default();
    let message = end.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("exit code {}{signal}{message}", end.exit_code)
}

#[cfg(test)]
mod tests;
