//! A ShardJob as a user has it: applied, and waited for.

use std::time::{Duration, Instant};

use hyperflow_api::{
    ShardJob, ShardJobStatus,
    status::{BlockCounts, ShardCounts},
};
use hyperflow_core::invariants;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::Value;

use crate::{Error, Result, cluster::Cluster, command};

/// How often status is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A ShardJob in a cluster.
#[derive(Clone)]
pub struct Job {
    api: Api<ShardJob>,
    /// Its name.
    pub name: String,
}

/// Reads one of the manifests in `e2e/jobs/`, the ones that users copy.
///
/// # Errors
/// When there is none of this name, or it is not YAML.
pub fn manifest(name: &str) -> Result<Value> {
    let path = format!("{}/jobs/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(serde_yaml::from_str(&text)?)
}

impl Job {
    /// `kubectl apply`, as a user does it: the API server's own checks apply, ours do not come first.
    ///
    /// # Errors
    /// With what kubectl says when the job is refused.
    pub async fn apply(cluster: &Cluster, namespace: &str, manifest: &Value) -> Result<Self> {
        let name = manifest["metadata"]["name"].as_str().ok_or("the manifest has no name")?.to_owned();
        let args = ["apply", "--namespace", namespace, "--filename", "-"];
        command::run_with("kubectl", &args, &manifest.to_string()).await?;
        Ok(Self::named(cluster, namespace, &name))
    }

    /// The job of a name, whether it is there or not.
    #[must_use]
    pub fn named(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(cluster.client.clone(), namespace), name: name.to_owned() }
    }

    /// The object now.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn get(&self) -> Result<ShardJob> {
        Ok(self.api.get(&self.name).await?)
    }

    /// The status now.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn status(&self) -> Result<ShardJobStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// Changes the spec as a user would, with a merge patch.
    ///
    /// # Errors
    /// With the API server's message when it is refused.
    pub async fn patch(&self, patch: Value) -> Result {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// `kubectl scale --replicas`.
    ///
    /// # Errors
    /// With the API server's message when it is refused.
    pub async fn scale(&self, workers: u32) -> Result {
        let scale = serde_json::json!({"spec": {"replicas": workers}});
        self.api.patch_scale(&self.name, &PatchParams::default(), &Patch::Merge(scale)).await?;
        Ok(())
    }

    /// Deletes the object as `kubectl delete --wait=false` does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self) -> Result {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Whether the object is there, be it on its way out.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn exists(&self) -> Result<bool> {
        Ok(self.api.get_opt(&self.name).await?.is_some())
    }

    /// Waits until the status says something; how long it took.
    ///
    /// # Errors
    /// After `limit`, with what was waited for and the last status; at once if the job ended in another way.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut says: impl FnMut(&ShardJobStatus) -> Option<T>,
    ) -> Result<(T, Duration)> {
        let start = Instant::now();
        loop {
            // The API server may be away for a moment: that is not what is tested here.
            let status = self.status().await.unwrap_or_default();
            if let Some(found) = says(&status) {
                return Ok((found, start.elapsed()));
            }
            if start.elapsed() > limit || (has(&status, "Complete") || has(&status, "Failed")) {
                let said = serde_json::to_string_pretty(&status)?;
                return Err(format!("waited {:.1} s for {what}; status: {said}", start.elapsed().as_secs_f32()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the job is Complete.
    ///
    /// # Errors
    /// When it fails, or takes longer than `limit`.
    pub async fn complete(&self, limit: Duration) -> Result<ShardJobStatus> {
        let complete = |status: &ShardJobStatus| has(status, "Complete").then(|| status.clone());
        let status = self.wait("Complete", limit, complete).await?.0;
        invariants::the_end_is_explained(&status)?;
        Ok(status)
    }

    /// Waits until the job is Failed; reason and message.
    ///
    /// # Errors
    /// When it completes, or takes longer than `limit`.
    pub async fn failed(&self, limit: Duration) -> Result<(String, String)> {
        let failed = |status: &ShardJobStatus| {
            let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed")?;
            (failed.status == "True").then(|| (status.clone(), failed.reason.clone(), failed.message.clone()))
        };
        let (status, reason, message) = self.wait("Failed", limit, failed).await?.0;
        invariants::the_end_is_explained(&status)?;
        Ok((reason, message))
    }
}

/// Whether a condition is True.
#[must_use]
pub fn has(status: &ShardJobStatus, condition: &str) -> bool {
    status.conditions.iter().any(|known| known.type_ == condition && known.status == "True")
}

/// Counts of shards; zeros before there is a plan.
#[must_use]
pub fn shards(status: &ShardJobStatus) -> ShardCounts {
    status.shards.clone().unwrap_or_default()
}

/// Counts of blocks, once no group of them lacks a copy.
#[must_use]
pub fn whole_blocks(status: &ShardJobStatus) -> Option<BlockCounts> {
    status.blocks.clone().filter(|blocks| blocks.groups > 0 && blocks.under_replicated == 0)
}

/// Whether status says that a shard has succeeded.
#[must_use]
pub fn is_done(status: &ShardJobStatus, index: u32) -> bool {
    let done = shards(status).completed_indexes.parse::<hyperflow_core::ranges::RangeSet>();
    done.is_ok_and(|done| done.contains(index))
}

/// A record of `status.recovery.attempts`, as the documentation of the format has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the shard.
    pub index: u32,
    /// First eight characters of the pod's UID.
    pub pod: String,
    /// The node it is on.
    pub node: String,
    /// Term and sequence of its epoch.
    pub epoch: String,
    /// Position of its newest checkpoint.
    pub checkpoint: Option<u64>,
}

/// Reads `status.recovery`.
///
/// # Errors
/// When it is not of the documented form.
pub fn attempts(status: &ShardJobStatus) -> Result<Vec<Attempt>> {
    let Some(notes) = &status.recovery else { return Ok(Vec::new()) };
    let place_of = |worker: &str| {
        let entry = notes.workers.split(',').find_map(|entry| entry.strip_prefix(&format!("{worker}=")));
        entry.and_then(|entry| entry.split_once('@')).map(|(pod, node)| (pod.to_owned(), node.to_owned()))
    };
    let read = |record: &str| -> Result<Attempt> {
        let malformed = || Error::from(format!("attempt '{record}' is not of the documented form"));
        let parts: Vec<&str> = record.split('/').collect();
        let [index, worker, epoch, history @ ..] = &parts[..] else { return Err(malformed()) };
        let checkpoint = history.iter().find_map(|part| part.strip_prefix('c')?.split_once('@'));
        let position = checkpoint.and_then(|(_, rest)| rest.split_once(':')).map(|(position, _)| position.parse());
        let (pod, node) = place_of(worker).ok_or_else(malformed)?;
        Ok(Attempt { index: index.parse()?, pod, node, epoch: (*epoch).into(), checkpoint: position.transpose()? })
    };
    notes.attempts.split(',').filter(|record| !record.is_empty()).map(read).collect()
}
