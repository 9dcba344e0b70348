//! Faults, each of which either happened or fails the test.

use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use tokio::process::Command;

use crate::{Result, cluster::Cluster};

impl Cluster {
    /// SIGKILL to every process of the pod's containers; the kubelet starts them again in place. Where processes are out
    /// of reach, in a cluster that is not of our own, the pod is deleted without grace instead.
    ///
    /// # Errors
    /// When nothing was killed.
    pub async fn kill(&self, pod: &Pod) -> Result {
        match self.tool {
            Some(_) => self.fault("kill", pod).await,
            None => self.delete_with(pod, &DeleteParams::default().grace_period(0)).await,
        }
    }

    /// Stops every process of the pod's containers where it is, without telling it.
    ///
    /// # Errors
    /// When nothing was stopped.
    pub async fn freeze(&self, pod: &Pod) -> Result {
        self.fault("freeze", pod).await
    }

    /// Lets a frozen pod go on.
    ///
    /// # Errors
    /// When nothing was let go.
    pub async fn thaw(&self, pod: &Pod) -> Result {
        self.fault("thaw", pod).await
    }

    /// Deletes the pod as `kubectl delete pod` does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, pod: &Pod) -> Result {
        self.delete_with(pod, &DeleteParams::default()).await
    }

    async fn delete_with(&self, pod: &Pod, how: &DeleteParams) -> Result {
        let namespace = pod.namespace().ok_or("a pod without namespace")?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        api.delete(&pod.name_any(), how).await?;
        Ok(())
    }

    async fn fault(&self, fault: &str, pod: &Pod) -> Result {
        let tool =
            self.tool.as_ref().ok_or("processes can be reached only in the local cluster: unset CLUSTER=current")?;
        let namespace = pod.namespace().ok_or("a pod without namespace")?;
        let output = Command::new(tool)
            .args(["fault", fault, "--namespace", &namespace, "--pod", &pod.name_any()])
            .stdin(Stdio::null())
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("fault {fault} did not happen: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
