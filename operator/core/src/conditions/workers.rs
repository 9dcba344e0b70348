//! `WorkersAvailable`: whether there are the workers there should be, and if not, why, and what to do.

use super::Says;
use crate::{
    causes::is_image_pull,
    coordinator::{Coordinator, STARTING, shorten},
};

const KIND: &str = "WorkersAvailable";

/// The condition. It counts workers only where status counts them anew anyway, and does not change with every pod that
/// starts.
pub(super) fn available(known: &Coordinator) -> Says<'_> {
    let (ready, wanted) = (known.ready(), known.desired());
    if wanted == 0 {
        return (KIND, true, "AsNeeded", "no worker is needed".into());
    }
    if let Some((reason, message)) = trouble(known, ready, wanted) {
        return (KIND, false, reason, shorten(&message));
    }
    let last = known.last_status().conditions.iter().find(|condition| condition.type_ == KIND);
    match last {
        // Before the workers have called, what was said last stands: a take-over changes nothing.
        Some(last) if known.is_settling() => (KIND, last.status == "True", &last.reason, last.message.clone()),
        _ if ready >= wanted => (KIND, true, "AllReady", format!("{ready} of {ready} workers are ready")),
        _ if ready > 0 => (KIND, true, "SomeReady", "workers are ready, and others are about to start".into()),
        _ => (KIND, false, "Starting", "no worker is ready yet: pods are about to start".into()),
    }
}

/// Why there are not the workers there should be: a word of the API, and the cluster's own words with a remedy.
fn trouble(known: &Coordinator, ready: usize, wanted: usize) -> Option<(&str, String)> {
    if ready >= wanted {
        return None;
    }
    if let Some((reason, message, _)) = &known.pool.refused {
        let (says, remedy) = (sentence(message), of_refusal(reason));
        return Some((reason, format!("{ready} of {wanted} workers run: {says} {remedy}Trying again every 30 s.")));
    }
    let (reason, message, pod) = known.pool.trouble()?;
    let word = word(reason, message);
    let namespace = &known.seen.namespace;
    let says = match word {
        "VolumeNotReady" if message.is_empty() => {
            format!("what pod '{pod}' mounts has not been there for 20 s or more.")
        }
        _ if message.is_empty() => format!("pod '{pod}' waits because of {reason}."),
        _ => sentence(message),
    };
    let remedy = match word {
        "Unschedulable" => {
            "Lower `spec.workers.resources`, correct `nodeSelector`, `affinity` and `tolerations` there, or add nodes."
                .into()
        }
        "ImagePull" if is_of_program(known, &says) => {
            "Correct `spec.task.exec.image`, once planned together with a new `spec.rerun.nonce`, or set \
             `spec.workers.imagePullSecrets`."
                .into()
        }
        "ImagePull" => {
            "The image is the operator's setting: correct it there, or set `spec.workers.imagePullSecrets`.".into()
        }
        "ImageRunsAsRoot" => "Set `spec.workers.securityContext.runAsUser`.".into(),
        "VolumeNotReady" => format!(
            "A Secret, a ConfigMap or a PersistentVolumeClaim of `spec.workers.volumes` may be missing or not bound: \
             `kubectl describe pod {pod} --namespace {namespace}` says which."
        ),
        "CrashLoopBackOff" => format!("`kubectl logs {pod} --previous --namespace {namespace}` says why."),
        _ => format!("`kubectl describe pod {pod} --namespace {namespace}` says more."),
    };
    Some((word, format!("{ready} of {wanted} workers run: {says} {remedy}")))
}

/// Whether the kubelet speaks of the image of the user's program: the worker's own is in the same pod.
fn is_of_program(known: &Coordinator, says: &str) -> bool {
    known.seen.spec.task.exec.as_ref().is_some_and(|exec| says.contains(&exec.image))
}

/// Another's message, as a sentence among ours.
fn sentence(message: &str) -> String {
    format!("{}.", message.trim().trim_end_matches('.'))
}

/// What to do when the API server does not want a pod.
fn of_refusal(reason: &str) -> &'static str {
    match reason {
        "QuotaExceeded" => "Lower `spec.workers.resources` or `spec.parallelism`, or ask for quota. ",
        "PodSecurity" => {
            "Worker pods meet Pod Security 'restricted': correct what the namespace asks for beyond that, or \
             `spec.workers`. "
        }
        "Forbidden" | "Invalid" => "Correct `spec.workers`, or ask who administers the namespace. ",
        _ => "",
    }
}

/// The kubelet's and the scheduler's reasons in the words of the API.
fn word<'a>(reason: &'a str, message: &str) -> &'a str {
    match reason {
        _ if is_image_pull(reason) => "ImagePull",
        _ if STARTING.contains(&reason) => "VolumeNotReady",
        // The scheduler waits for claims too: they are missing, or nobody binds them.
        "Unschedulable" if message.to_ascii_lowercase().contains("persistentvolumeclaim") => "VolumeNotReady",
        "CreateContainerConfigError" if message.contains("image will run as root") => "ImageRunsAsRoot",
        "CreateContainerConfigError" | "CreateContainerError" => "ContainerRefused",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_words_become_words_of_the_api() {
        for (reason, message, says) in [
            ("ErrImagePull", "", "ImagePull"),
            ("ImagePullBackOff", "", "ImagePull"),
            ("Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.", "Unschedulable"),
            ("Unschedulable", "persistentvolumeclaim \"data\" not found.", "VolumeNotReady"),
            ("Unschedulable", "pod has unbound immediate PersistentVolumeClaims.", "VolumeNotReady"),
            ("ContainerCreating", "", "VolumeNotReady"),
            (
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"a\", container: worker)",
                "ImageRunsAsRoot",
            ),
            ("CreateContainerConfigError", "secret \"keys\" not found", "ContainerRefused"),
            ("CrashLoopBackOff", "back-off", "CrashLoopBackOff"),
        ] {
            assert_eq!(word(reason, message), says, "{reason} {message}");
        }
    }

    #[test]
    fn another_s_message_ends_with_one_full_stop() {
        assert_eq!(sentence("0/2 nodes are available. "), "0/2 nodes are available.");
        assert_eq!(sentence("exceeded quota: a"), "exceeded quota: a.");
    }
}
