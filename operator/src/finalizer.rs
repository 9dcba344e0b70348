//! The finalizer: a job that leaves temporary files stays until they are swept, or until nobody waits for that (P24).

use std::time::Duration;

use hyperflow_api::{ShardJob, ids::JobUid};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    client::{CallError, call},
    telemetry::chain,
};

/// Our entry in `metadata.finalizers`.
const NAME: &str = "hyperflow.dev/temporary-files";

/// The pause before another try to take it off.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the object should get it. The API server takes no new one while it deletes.
#[must_use]
pub fn is_missing(job: &ShardJob) -> bool {
    let keeps = job.spec.output.is_some() || job.spec.records.is_some();
    keeps && job.metadata.deletion_timestamp.is_none() && !has_ours(job)
}

/// Puts it on the very object that was seen, and returns the object as it is then.
///
/// # Errors
/// When it was not put on, or nobody knows. A conflict is one of these: the next turn sees the object anew.
pub async fn add(client: &Client, job: &ShardJob) -> Result<ShardJob, CallError> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let api: Api<ShardJob> = Api::namespaced(client.clone(), &namespace);
    let all: Vec<&str> = job.finalizers().iter().map(String::as_str).chain([NAME]).collect();
    let patch = Patch::Merge(patch(job.resource_version().as_deref(), &all));
    call("add finalizer to shardjob", &name, api.patch(&name, &PatchParams::default(), &patch)).await
}

/// Takes it off, if it is there and the object is still the same; others' stay. It reads no more than metadata, and so
/// works for an object that cannot be read otherwise.
///
/// # Errors
/// When it was not taken off, or nobody knows.
pub async fn remove(client: &Client, namespace: &str, name: &str, uid: &JobUid) -> Result<(), CallError> {
    let api: Api<ShardJob> = Api::namespaced(client.clone(), namespace);
    let Some(live) = call("get metadata of shardjob", name, api.get_metadata_opt(name)).await? else { return Ok(()) };
    if live.uid().as_deref() != Some(&uid.0) || !has_ours(&live) {
        return Ok(());
    }
    let others: Vec<&str> = live.finalizers().iter().map(String::as_str).filter(|it| *it != NAME).collect();
    let patch = Patch::Merge(patch(live.resource_version().as_deref(), &others));
    match call("remove finalizer from shardjob", name, api.patch_metadata(name, &PatchParams::default(), &patch)).await
    {
        Ok(_) => info!(namespace, job = name, "let the job go"),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Takes it off, however long that takes. `about` is the job.
pub async fn remove_at_last(client: Client, about: ObjectReference) {
    let ObjectReference { namespace, name, uid, .. } = about;
    let (namespace, name, uid) = (namespace.unwrap_or_default(), name.unwrap_or_default(), uid.unwrap_or_default());
    while let Err(error) = remove(&client, &namespace, &name, &JobUid(uid.clone())).await {
        // Our own write of the status in between is no reason to worry.
        if error.is_conflict() {
            debug!(error = chain(&error), "somebody else wrote the object");
        } else {
            warn!(error = chain(&error), "the finalizer was not removed; it is tried again");
        }
        sleep(PAUSE).await;
    }
}

fn has_ours(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|it| it == NAME)
}

/// A list replaces the list, so it must be made from the list that is there: the version says so.
fn patch(version: Option<&str>, finalizers: &[&str]) -> Value {
    json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}})
}

/// Whether the namespace is being deleted: then nothing can be started any more that would sweep. Who cannot find out
/// takes it that it is not.
pub async fn is_abandoned(client: &Client, namespace: &str) -> bool {
    let api: Api<Namespace> = Api::all(client.clone());
    match call("get metadata of namespace", namespace, api.get_metadata_opt(namespace)).await {
        Ok(found) => found.is_none_or(|it| it.metadata.deletion_timestamp.is_some()),
        Err(error) => {
            warn!(error = chain(&error), "nobody knows whether a job's namespace is being deleted");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(output: bool, finalizers: &[&str], deleting: bool) -> ShardJob {
        let mut job = json!({
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "finalizers": finalizers},
            "spec": {"source": {"numbers": {"count": 1}}, "task": {"noop": {}}},
        });
        if output {
            job["spec"]["output"] = json!({"url": "file:///data/out/", "path": "{index}"});
        }
        if deleting {
            job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn only_a_job_with_output_that_is_not_going_needs_one() {
        assert!(is_missing(&job(true, &[], false)));
        assert!(is_missing(&job(true, &["other/one"], false)));
        assert!(!is_missing(&job(true, &["other/one", NAME], false)));
        assert!(!is_missing(&job(true, &[], true)));
        assert!(!is_missing(&job(false, &[], false)));
    }
}
