//! The control plane: the operators, the API server and etcd, what they count, and ways to take them away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams, Request},
};
use serde_json::json;

use crate::{Result, cluster::Cluster, command::run, ensure, fault::finally};

/// How often the operators are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long a new operator may take to be ready, images being there.
const STARTED: Duration = Duration::from_secs(60);

/// Name of the Deployment that is made beside the real one.
const SECOND: &str = "hyperflow-e2e-second";

/// A part of the control plane that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The API server.
    ApiServer,
    /// Its store.
    Etcd,
}

impl Part {
    fn faults(self) -> (&'static str, &'static str) {
        match self {
            Self::ApiServer => ("stop-apiserver", "start-apiserver"),
            Self::Etcd => ("stop-etcd", "start-etcd"),
        }
    }
}

impl Cluster {
    /// A client that asks once: after an outage it must not be asleep between two tries.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn impatient(&self) -> Result<Client> {
        let mut config = Config::infer().await?;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(1));
        Ok(Client::try_from(config)?)
    }

    /// Kills a part of the control plane, acts while it is away, and starts it again whatever came of that. What the act
    /// returned, and when the part answered again.
    ///
    /// # Errors
    /// When the part was not there to be killed, when the act fails, or when the part does not come back.
    pub async fn without<T>(&self, part: Part, act: impl Future<Output = Result<T>>) -> Result<(T, Instant)> {
        let (stop, start) = part.faults();
        self.harm(&[stop]).await?;
        let acted = finally(act, self.harm(&[start])).await?;
        Ok((acted, Instant::now()))
    }

    /// Kills the operator that leads; its name.
    ///
    /// # Errors
    /// When nobody leads, or the leader could not be killed.
    pub async fn kill_leader(&self) -> Result<String> {
        let leader = self.leader().await?.ok_or("no operator leads")?;
        self.kill(&leader).await?;
        Ok(leader.name_any())
    }

    /// `helm` with releases of the operator's namespace, until what it changes is ready.
    ///
    /// # Errors
    /// When it fails, or nothing is ready in two minutes.
    pub async fn helm(&self, args: &[&str]) -> Result {
        let common = ["--namespace", &self.operator_namespace, "--wait", "--timeout", "120s"];
        run("helm", &[args, &common].concat()).await?;
        Ok(())
    }

    /// Which revision of a release is there, to roll back to.
    ///
    /// # Errors
    /// When Helm does not know the release.
    pub async fn revision(&self, release: &str) -> Result<String> {
        let args = ["get", "metadata", release, "--namespace", &self.operator_namespace, "--output", "json"];
        let metadata: serde_json::Value = serde_json::from_str(&run("helm", &args).await?)?;
        Ok(metadata["revision"].to_string())
    }

    /// `kubectl rollout restart` of the operator, until every pod is a new one and ready; how long it took.
    ///
    /// # Errors
    /// When it does not come to its end.
    pub async fn roll_operators(&self) -> Result<Duration> {
        let start = Instant::now();
        let before: Vec<_> = self.operator_pods().await?.iter().filter_map(ResourceExt::uid).collect();
        let name = self.deployment().await?.name_any();
        self.deployments().restart(&name).await?;
        loop {
            let pods = self.operator_pods().await?;
            let new = |pod: &Pod| pod.uid().is_some_and(|uid| !before.contains(&uid)) && is_ready(pod);
            if pods.len() == before.len() && pods.iter().all(new) {
                return Ok(start.elapsed());
            }
            ensure(start.elapsed() < STARTED, || "the operator's roll-out did not end in a minute".into())?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Acts while an operator that asks for no Lease works beside the one that holds it, so that two lead.
    ///
    /// # Errors
    /// When there are not two leaders, when the act fails, or when the second cannot be removed.
    pub async fn with_second_leader<T>(&self, act: impl AsyncFnOnce(Pod) -> Result<T>) -> Result<T> {
        let mut second = self.deployment().await?;
        let name = Some(SECOND.to_owned());
        second.metadata = kube::core::ObjectMeta { name, ..kube::core::ObjectMeta::default() };
        second.status = None;
        let spec = second.spec.as_mut().ok_or("a Deployment without spec")?;
        spec.replicas = Some(1);
        // The labels stay what they are, so that workers find it by the same Service; one more keeps the pods apart.
        let mark = || ("hyperflow.dev/e2e".to_owned(), "second".to_owned());
        spec.selector.match_labels.get_or_insert_default().extend([mark()]);
        let template = spec.template.metadata.get_or_insert_default();
        template.labels.get_or_insert_default().extend([mark()]);
        let container = spec.template.spec.as_mut().and_then(|pod| pod.containers.first_mut());
        let args = container.and_then(|container| container.args.as_mut()).ok_or("an operator without arguments")?;
        let elect = args.iter_mut().find(|arg| *arg == "--leader-elect=true").ok_or("the operator elects no leader")?;
        "--leader-elect=false".clone_into(elect);
        self.deployments().create(&PostParams::default(), &second).await?;
        let act = async { act(self.second_operator().await?).await };
        finally(act, self.remove_second()).await
    }

    async fn second_operator(&self) -> Result<Pod> {
        let start = Instant::now();
        loop {
            if let Some(pod) = self.seconds().await?.into_iter().find(is_ready) {
                return Ok(pod);
            }
            ensure(start.elapsed() < STARTED, || "the second operator was not ready in a minute".into())?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn remove_second(&self) -> Result {
        let start = Instant::now();
        self.deployments().delete(SECOND, &DeleteParams::foreground()).await?;
        while !self.seconds().await?.is_empty() {
            ensure(start.elapsed() < STARTED, || "the second operator was still there after a minute".into())?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn seconds(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        Ok(api.list(&ListParams::default().labels("hyperflow.dev/e2e=second")).await?.items)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.operator_namespace)
    }

    pub(crate) async fn deployment(&self) -> Result<Deployment> {
        let list = ListParams::default().labels("app.kubernetes.io/component=operator");
        let found = self.deployments().list(&list).await?.items.pop();
        found.ok_or_else(|| "there is no Deployment of the operator".into())
    }

    /// What an operator logged since it started.
    ///
    /// # Errors
    /// When the kubelet does not say.
    pub async fn log(&self, operator: &Pod) -> Result<Vec<serde_json::Value>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let text = api.logs(&operator.name_any(), &LogParams::default()).await?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!({"message": line}))).collect())
    }

    /// What an operator counts.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn operator_counts(&self, operator: &Pod) -> Result<Counts> {
        let namespace = &self.operator_namespace;
        self.counts(&format!("/api/v1/namespaces/{namespace}/pods/{}:8080/proxy/metrics", operator.name_any())).await
    }

    /// What the API server counts.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn api_server_counts(&self) -> Result<Counts> {
        self.counts("/metrics").await
    }

    async fn counts(&self, path: &str) -> Result<Counts> {
        let request = Request::new(path).list(&ListParams::default())?;
        Ok(Counts::read(&self.client.request_text(request).await?))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = |condition: &_| {
        let k8s_openapi::api::core::v1::PodCondition { type_, status, .. } = condition;
        type_ == "Ready" && status == "True"
    };
    pod.metadata.deletion_timestamp.is_none() && conditions.is_some_and(|conditions| conditions.iter().any(ready))
}

/// How often the containers of a pod were started again in place.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).sum()
}

/// A page of metrics: each series, as it is written, and its value.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<String, f64>);

impl Counts {
    pub(crate) fn read(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        Self(series.filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?))).collect())
    }

    /// The sum of all series of a name that have all these labels, each as `name="value"`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let has = |series: &str, label: &str| {
            let within = series.strip_suffix('}').and_then(|series| series.split_once('{'));
            within.is_some_and(|(_, all)| format!(",{all},").contains(&format!(",{label},")))
        };
        let chosen =
            |series: &&String| series.split('{').next() == Some(name) && labels.iter().all(|label| has(series, label));
        self.0.iter().filter(|(series, _)| chosen(series)).map(|(_, value)| value).sum()
    }

    /// Status writes of ShardJobs that the API server answered, whatever the answer.
    #[must_use]
    pub fn status_writes(&self) -> f64 {
        let writes = ["PUT", "PATCH", "APPLY"].map(|verb| format!("verb=\"{verb}\""));
        let of = |verb: &String| {
            self.sum("apiserver_request_total", &["resource=\"shardjobs\"", "subresource=\"status\"", verb])
        };
        writes.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_whole_labels() {
        let page = "# TYPE a counter\n\
                    a{resource=\"shardjobs\",verb=\"PUT\",code=\"200\"} 3\n\
                    a{resource=\"shardjobs\",verb=\"PUT\",code=\"409\"} 1\n\
                    a{subresource=\"shardjobs\",verb=\"PUT\"} 50\n\
                    ab{resource=\"shardjobs\",verb=\"PUT\"} 100\n\
                    b 7e+01\n";
        let counts = Counts::read(page);
        assert!((counts.sum("a", &["resource=\"shardjobs\"", "verb=\"PUT\""]) - 4.0).abs() < 1e-9);
        assert!((counts.sum("b", &[]) - 70.0).abs() < 1e-9);
    }
}
