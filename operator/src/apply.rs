//! Makes the pool what the core wants it to be. Writes pods and the ConfigMap beside them, nothing else.

use hyperflow_api::ids::JobUid;
use hyperflow_core::coordinator::{self, WantedPods};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};

use crate::{
    client::{CallError, call},
    observe,
};

/// The field manager of what we apply.
const MANAGER: &str = "hyperflow";

/// The pool is not what it should be yet.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The ConfigMap that pods mount is not there.
    #[error("cannot give workers the operator's certificate")]
    Authority(#[source] CallError),
    /// A pod was not created, for a reason that may pass.
    #[error("cannot add a worker")]
    Create(#[source] CallError),
    /// A pod was not deleted.
    #[error("cannot remove a worker")]
    Delete(#[source] CallError),
}

impl ApplyError {
    /// For the metric's label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authority(_) => "apply_authority",
            Self::Create(_) => "apply_create",
            Self::Delete(_) => "apply_delete",
        }
    }
}

/// The API server does not want a pod: an answer for the core, and no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRefusal {
    /// A word for programs: `QuotaExceeded`.
    pub reason: &'static str,
    /// The API server's words.
    pub message: String,
}

/// What is to be done, built.
pub struct Plan {
    /// Comes before the pods, which mount it.
    pub authority: ConfigMap,
    /// Pods to create.
    pub pods: Vec<Pod>,
    /// Pods to delete, by name and UID.
    pub delete: Vec<(String, String)>,
}

impl Plan {
    /// What the core wants, built.
    #[must_use]
    pub fn new(wanted: WantedPods, authority: ConfigMap, build: impl Fn(&str, u32) -> Pod) -> Self {
        let WantedPods { run, create, delete } = wanted;
        Self { authority, pods: create.iter().map(|name| build(name, run)).collect(), delete }
    }
}

/// Deletes and creates. What the API server refuses to create is returned: the rest would be refused as well.
///
/// # Errors
/// With the first call that failed in a way that may pass.
pub async fn apply(
    client: &Client,
    namespace: &str,
    job: &JobUid,
    plan: Plan,
) -> Result<Option<PodRefusal>, ApplyError> {
    let Plan { authority, pods: wanted, delete } = plan;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for (name, uid) in delete {
        remove(&pods, &name, uid).await.map_err(ApplyError::Delete)?;
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    // Applied whenever pods are made: somebody may have deleted or changed it.
    publish_authority(client, namespace, &authority).await.map_err(ApplyError::Authority)?;
    for pod in wanted {
        if let Some(refusal) = create(&pods, &pod, job).await.map_err(ApplyError::Create)? {
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

/// Deletes these pods.
///
/// # Errors
/// With the first call that failed in a way that may pass.
pub async fn clear(client: &Client, namespace: &str, pool: &[coordinator::Pod]) -> Result<(), ApplyError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pool {
        remove(&pods, &pod.name, pod.uid.clone()).await.map_err(ApplyError::Delete)?;
    }
    Ok(())
}

async fn publish_authority(client: &Client, namespace: &str, map: &ConfigMap) -> Result<(), CallError> {
    let name = map.name_any();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(MANAGER).force();
    call("apply config map", &name, maps.patch(&name, &params, &Patch::Apply(map))).await.map(drop)
}

/// Only that very pod: one made later under the same name stays.
async fn remove(pods: &Api<Pod>, name: &str, uid: String) -> Result<(), CallError> {
    let params = DeleteParams::default().preconditions(Preconditions { uid: Some(uid), resource_version: None });
    match call("delete pod", name, pods.delete(name, &params)).await {
        Ok(_) => Ok(()),
        // It is gone, or another pod has its name by now.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn create(pods: &Api<Pod>, pod: &Pod, job: &JobUid) -> Result<Option<PodRefusal>, CallError> {
    let name = pod.name_any();
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match call("create pod", &name, pods.create(&params, pod)).await {
        Ok(_) => Ok(None),
        // Names are settled by the core, so the pod that the cache does not show yet is found here (B11).
        Err(error) if error.answer().is_some_and(|(_, reason, _)| reason == "AlreadyExists") => {
            match call("get pod", &name, pods.get_opt(&name)).await? {
                Some(found) if !observe::belongs(&found, job) => Ok(Some(PodRefusal {
                    reason: "NameTaken",
                    message: format!("pod '{name}' exists and is not a worker of this job; delete or rename it"),
                })),
                _ => Ok(None),
            }
        }
        Err(error) => match refusal(&error) {
            Some(refusal) => Ok(Some(refusal)),
            None => Err(error),
        },
    }
}

/// Sorts what the API server says no to.
fn refusal(error: &CallError) -> Option<PodRefusal> {
    let (code, _, message) = error.answer()?;
    let reason = match code {
        403 if message.contains("exceeded quota") => "QuotaExceeded",
        403 if message.contains("violates PodSecurity") => "PodSecurity",
        403 if message.contains("is being terminated") => "NamespaceTerminating",
        403 => "Forbidden",
        404 => "NotFound",
        400 | 422 => "Invalid",
        _ => return None,
    };
    Some(PodRefusal { reason, message: message.into() })
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16, message: &str) -> Option<PodRefusal> {
        let status = Status { code, message: message.into(), ..Status::default() };
        let source = Box::new(kube::Error::Api(Box::new(status)));
        refusal(&CallError::Api { action: "create pod", subject: "copy-w0".into(), source })
    }

    #[test]
    fn refusals_are_told_apart_from_failures() {
        for (code, message, reason) in [
            (403, "pods \"copy-w0\" is forbidden: exceeded quota: team, requested: pods=1", Some("QuotaExceeded")),
            (403, "pods \"copy-w0\" is forbidden: violates PodSecurity \"restricted:latest\"", Some("PodSecurity")),
            (
                403,
                "unable to create new content in namespace a because it is being terminated",
                Some("NamespaceTerminating"),
            ),
            (403, "forbidden: no PriorityClass with name low was found", Some("Forbidden")),
            (422, "Pod \"copy-w0\" is invalid", Some("Invalid")),
            (429, "too many requests", None),
            (500, "etcdserver: request timed out", None),
            (503, "apiserver not ready", None),
        ] {
            assert_eq!(answered(code, message).map(|refusal| refusal.reason), reason, "{message}");
        }
    }
}
