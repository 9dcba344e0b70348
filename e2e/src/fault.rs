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

    /// Takes memory away from the pod's containers until the kernel kills for want of it; the kubelet starts them again.
    ///
    /// # Errors
    /// When nothing was killed.
    pub async fn squeeze(&self, pod: &Pod) -> Result {
        self.fault("squeeze", pod).await
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
        let namespace = pod.namespace().ok_or("a pod without namespace")?;
        self.harm(&[fault, "--namespace", &namespace, "--pod", &pod.name_any()]).await
    }

    /// `cluster fault …`: harm, or its end.
    ///
    /// # Errors
    /// When it did not happen.
    pub async fn harm(&self, fault: &[&str]) -> Result {
        let tool =
            self.tool.as_ref().ok_or("processes can be reached only in the local cluster: unset CLUSTER=current")?;
        let output = Command::new(tool).arg("fault").args(fault).stdin(Stdio::null()).output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("fault {} did not happen: {}", fault.join(" "), String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// What a test does while something is broken, and then the repair, whatever came of it.
///
/// # Errors
/// With the first of both, or with both.
pub fn finally<T>(
    act: impl Future<Output = Result<T>>,
    repair: impl Future<Output = Result>,
) -> impl Future<Output = Result<T>> {
    // A whole test is large, and would be part of every future that it is in.
    let (act, repair) = (Box::pin(act), Box::pin(repair));
    async move {
        match (act.await, repair.await) {
            (Ok(value), Ok(())) => Ok(value),
            (Err(error), Ok(())) => Err(error),
            (Ok(_), Err(repair)) => Err(format!("what was broken could not be put right: {repair}").into()),
            (Err(error), Err(repair)) => {
                Err(format!("{error}\nwhat was broken could not be put right: {repair}").into())
            }
        }
    }
}
