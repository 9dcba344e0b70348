//! The cluster under test, and a place of its own for each test.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use futures::AsyncReadExt;
use k8s_openapi::{
    api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::json;

use crate::{Result, job::Job};

/// Who applies what the tests apply.
const MANAGER: &str = "hyperflow-e2e";

/// Numeric user of the workers: hostPath volumes keep the owner that they have.
const WORKER_USER: u32 = 65_532;

/// Where volumes lie on this machine. The nodes of the cluster must see the same folder.
pub const VOLUMES: &str = "/var/lib/hyperflow-e2e";

/// A cluster in which Hyperflow is installed.
#[derive(Clone)]
pub struct Cluster {
    /// A client with the rights of an administrator.
    pub client: Client,
    /// The namespace of the operator.
    pub operator_namespace: String,
    /// The tool that made the local cluster, which can also break it; none for a cluster that exists already.
    pub tool: Option<PathBuf>,
}

impl Cluster {
    /// The cluster that `KUBECONFIG` names; `HYPERFLOW_CLUSTER_TOOL` is the tool that made it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect() -> Result<Self> {
        let client = tokio::time::timeout(Duration::from_secs(10), Client::try_default()).await??;
        let operator_namespace = std::env::var("HYPERFLOW_NAMESPACE").unwrap_or_else(|_| "hyperflow-system".into());
        let tool = std::env::var_os("HYPERFLOW_CLUSTER_TOOL").map(PathBuf::from);
        Ok(Self { client, operator_namespace, tool })
    }

    /// A namespace with Pod Security `restricted` and a shared volume `data`, empty.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn place(&self, name: &str) -> Result<Place> {
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() % 100_000_000;
        let namespace = format!("hf-{}-{stamp}", name.replace('_', "-"));
        let folder = Path::new(VOLUMES).join(&namespace);
        for part in ["", "in", "out"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path)?;
            std::os::unix::fs::chown(&path, Some(WORKER_USER), Some(WORKER_USER))?;
        }
        let place = Place { cluster: self.clone(), namespace, folder };
        place.create().await?;
        Ok(place)
    }

    /// The pods of the operator.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let list = ListParams::default().labels("app.kubernetes.io/component=operator");
        Ok(api.list(&list).await?.items)
    }
}

/// A line that a worker logged.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// When, by the clock of its node.
    pub timestamp: Timestamp,
    /// What.
    #[serde(default)]
    pub message: String,
}

/// A test's own namespace and volume.
pub struct Place {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub namespace: String,
    folder: PathBuf,
}

impl Place {
    async fn create(&self) -> Result {
        let client = &self.cluster.client;
        let apply = PatchParams::apply(MANAGER).force();
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "hyperflow.dev/e2e": "true"});
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}
        });
        Api::<Namespace>::all(client.clone()).patch(&self.namespace, &apply, &Patch::Apply(namespace)).await?;
        let access = json!(["ReadWriteMany"]);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": self.namespace, "labels": {"hyperflow.dev/e2e": "true"}},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": access, "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": self.folder},
                "claimRef": {"namespace": self.namespace, "name": "data"}
            }
        });
        Api::<PersistentVolume>::all(client.clone()).patch(&self.namespace, &apply, &Patch::Apply(volume)).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &self.namespace);
        // The controller that binds loses races against others that write the volume, and tries again 15 s later, or as
        // soon as the claim changes. After an outage of the API server it looks again after up to a minute.
        for time in 0..360 {
            let claim = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "annotations": {"hyperflow.dev/asked": time.to_string()}},
                "spec": {
                    "accessModes": access, "storageClassName": "", "volumeName": self.namespace,
                    "resources": {"requests": {"storage": "10Gi"}}
                }
            });
            let claim = claims.patch("data", &apply, &Patch::Apply(claim)).await?;
            if claim.status.and_then(|status| status.phase).as_deref() == Some("Bound") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Err("the volume was not bound in a minute and a half".into())
    }

    /// A file or folder of the volume, as this machine sees it; `/data/…` in the workers.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.join(inside)
    }

    /// The same of a URL in a job's spec or status.
    ///
    /// # Errors
    /// When it is not on the volume.
    pub fn path_of(&self, url: &str) -> Result<PathBuf> {
        let inside = url.strip_prefix("file:///data/").ok_or_else(|| format!("'{url}' is not on the volume"))?;
        Ok(self.path(inside))
    }

    /// Writes a file of the volume, and the folders that it needs.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn write(&self, inside: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(inside);
        let mut folder = self.folder.clone();
        for part in Path::new(inside).parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            std::fs::create_dir_all(&folder)?;
            std::os::unix::fs::chown(&folder, Some(WORKER_USER), Some(WORKER_USER))?;
        }
        std::fs::write(&path, bytes)?;
        std::os::unix::fs::chown(&path, Some(WORKER_USER), Some(WORKER_USER))?;
        Ok(path)
    }

    /// Writes an input of `bytes` that looks like chance and is the same for the same seed.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn write_input(&self, name: &str, bytes: usize, seed: u64) -> Result<PathBuf> {
        self.write(&format!("in/{name}"), &crate::oracle::noise(bytes, seed))
    }

    /// Empties the output folder, for another job.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn empty_output(&self) -> Result {
        let output = self.path("out");
        std::fs::remove_dir_all(&output)?;
        std::fs::create_dir(&output)?;
        std::os::unix::fs::chown(&output, Some(WORKER_USER), Some(WORKER_USER))?;
        Ok(())
    }

    /// Applies a ShardJob.
    ///
    /// # Errors
    /// With the API server's own message when it is refused.
    pub async fn apply(&self, manifest: serde_json::Value) -> Result<Job> {
        Job::apply(&self.cluster, &self.namespace, &manifest).await
    }

    /// A ShardJob that somebody else applied.
    #[must_use]
    pub fn job(&self, name: &str) -> Job {
        Job::named(&self.cluster, &self.namespace, name)
    }

    /// The worker pods of a job that are not being deleted.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn workers(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let mut pods = api.list(&ListParams::default()).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// The worker pod whose UID begins so, as status abbreviates it.
    ///
    /// # Errors
    /// When there is none, or the API server does not answer.
    pub async fn worker(&self, uid: &str) -> Result<Pod> {
        let ours = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|known| known.starts_with(uid));
        let found = self.workers().await?.into_iter().find(ours);
        found.ok_or_else(|| format!("there is no worker pod with UID {uid}…").into())
    }

    /// Listens to a pod from its beginning to its end; what it logged is there when it has been deleted.
    ///
    /// # Errors
    /// When the kubelet does not say.
    pub async fn follow(&self, pod: &Pod) -> Result<impl Future<Output = Result<Vec<Line>>> + use<>> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let follow = LogParams { follow: true, ..LogParams::default() };
        let log = api.log_stream(&pod.name_any(), &follow).await?;
        Ok(async move {
            let mut text = String::new();
            pin!(log).read_to_string(&mut text).await?;
            text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
        })
    }

    /// Deletes the namespace, as `kubectl delete namespace --wait=false` does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_namespace(&self) -> Result {
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Whether the namespace is there, be it on its way out.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn exists(&self) -> Result<bool> {
        Ok(Api::<Namespace>::all(self.cluster.client.clone()).get_opt(&self.namespace).await?.is_some())
    }

    /// Removes everything the test made.
    ///
    /// # Errors
    /// When the cluster or the file system refuses.
    pub async fn remove(self) -> Result {
        let client = &self.cluster.client;
        let now = DeleteParams::default();
        if self.exists().await? {
            self.delete_namespace().await?;
        }
        Api::<PersistentVolume>::all(client.clone()).delete(&self.namespace, &now).await?;
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}
