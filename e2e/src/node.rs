//! Whole nodes: which one to break, how, and what an administrator does to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::{Duration, Instant},
};

use hyperflow_api::ShardJobStatus;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams, Patch, PatchParams, Request},
};
use serde_json::json;
use tokio::process::Command;

use crate::{
    Result,
    cluster::Cluster,
    ensure,
    job::{self, Attempt, Job},
};

/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What was granted when the node was lost is in status after so long, and no lease has ended yet.
const RECORDED: Duration = Duration::from_secs(3);

/// How long a cluster may take to be as it was, after a node came back.
const MENDED: Duration = Duration::from_secs(90);

impl Cluster {
    /// Names of all nodes.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(nodes.iter().map(ResourceExt::name_any).collect())
    }

    /// What each node has for a label.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn labels(&self, key: &str) -> Result<BTreeMap<String, Option<String>>> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(nodes.iter().map(|node| (node.name_any(), node.labels().get(key).cloned())).collect())
    }

    /// Sets a label of a node, or takes it away.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn label(&self, node: &str, key: &str, value: Option<&str>) -> Result {
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        Api::<Node>::all(self.client.clone()).patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The operator that holds the Lease, if it is there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn leader(&self) -> Result<Option<Pod>> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let lease = leases.get("hyperflow-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let pod = holder.rsplit_once('_').map(|(pod, _)| pod.to_owned()).unwrap_or_default();
        Ok(self.operator_pods().await?.into_iter().find(|operator| operator.name_any() == pod))
    }

    /// Waits until every node takes pods, every operator is ready and one leads: what the next test needs.
    ///
    /// # Errors
    /// When that takes too long, with what is missing.
    pub async fn mended(&self) -> Result {
        let start = Instant::now();
        loop {
            let missing = match self.missing().await {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                Err(error) => error.to_string(),
            };
            ensure(start.elapsed() < MENDED, || format!("after {MENDED:?}: {missing}"))?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn missing(&self) -> Result<Option<String>> {
        for node in Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await? {
            let name = node.name_any();
            if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
                return Ok(Some(format!("{name} is cordoned")));
            }
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            if !conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return Ok(Some(format!("{name} is not ready")));
            }
        }
        let wanted = self.deployment().await?.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let operators = self.operator_pods().await?;
        if i32::try_from(operators.len())? != wanted {
            return Ok(Some(format!("there are {} operators, not {wanted}", operators.len())));
        }
        for operator in operators {
            // Asked itself: what the API server knows of a pod is old for a while after its node came back.
            let namespace = &self.operator_namespace;
            let path = format!("/api/v1/namespaces/{namespace}/pods/{}:8080/proxy/readyz", operator.name_any());
            let request = Request::new(path).list(&ListParams::default())?;
            if let Err(error) = self.client.request_text(request).await {
                return Ok(Some(format!("operator {} is not ready: {error}", operator.name_any())));
            }
        }
        Ok(self.leader().await?.is_none().then(|| "no operator leads".into()))
    }

    /// Sets how many operators there are; how many there were.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn scale_operators(&self, replicas: i32) -> Result<i32> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let found = self.deployment().await?;
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch(&found.name_any(), &PatchParams::default(), &patch).await?;
        Ok(found.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// Lets no new pod on the node, or again.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn cordon(&self, node: &str, cordoned: bool) -> Result {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        Api::<Node>::all(self.client.clone()).patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// `kubectl drain`: evicts every pod of the node and waits until they are gone.
    ///
    /// # Errors
    /// With what kubectl says.
    pub async fn drain(&self, node: &str) -> Result {
        let arguments = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"];
        let output = Command::new("kubectl").args(arguments).stdin(Stdio::null()).output().await?;
        ensure(output.status.success(), || {
            format!("kubectl drain {node}: {}", String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    /// Asks for a pod's eviction, as a drain does for each pod.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn evict(&self, pod: &Pod) -> Result {
        let namespace = pod.namespace().ok_or("a pod without namespace")?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        api.evict(&pod.name_any(), &EvictParams::default()).await?;
        Ok(())
    }
}

impl Job {
    /// Waits until workers on two nodes hold shards; one of these on which the operator that leads is not, so that losing
    /// it tells of workers alone.
    ///
    /// # Errors
    /// After a minute, or when nobody leads.
    pub async fn busy_on_two(&self, cluster: &Cluster) -> Result<String> {
        let leaders = cluster.leader().await?.and_then(|pod| pod.spec?.node_name).ok_or("no operator leads")?;
        let busy = |status: &ShardJobStatus| {
            let nodes: BTreeSet<String> = job::attempts(status).ok()?.into_iter().map(|attempt| attempt.node).collect();
            let other = nodes.iter().find(|node| **node != leaders).cloned();
            other.filter(|_| nodes.len() > 1)
        };
        Ok(self.wait("shards under way on two nodes", Duration::from_secs(60), busy).await?.0)
    }

    /// Waits until every shard that a worker of this node holds, or is seen to have held meanwhile, is done or leased to
    /// a worker of another node. Returns what they held.
    ///
    /// # Errors
    /// After `limit`.
    pub async fn moved_off(&self, node: &str, limit: Duration) -> Result<Vec<Attempt>> {
        let start = Instant::now();
        let mut held: BTreeMap<u32, Attempt> = BTreeMap::new();
        let moved = |status: &ShardJobStatus| {
            let (here, elsewhere): (Vec<Attempt>, _) =
                job::attempts(status).ok()?.into_iter().partition(|attempt| attempt.node == node);
            let none_left = here.is_empty() && start.elapsed() >= RECORDED;
            held.extend(here.into_iter().map(|attempt| (attempt.index, attempt)));
            let left = |index: &u32| {
                job::is_done(status, *index) || elsewhere.iter().any(|attempt: &Attempt| attempt.index == *index)
            };
            (none_left && !held.is_empty() && held.keys().all(left)).then_some(())
        };
        self.wait(&format!("the shards of {node} to move"), limit, moved).await?;
        ensure(!held.is_empty(), || format!("no worker of {node} held a shard"))?;
        Ok(held.into_values().collect())
    }
}
