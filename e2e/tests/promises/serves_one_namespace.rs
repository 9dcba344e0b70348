//! An operator with `watchNamespace` serves that namespace, with rights there alone, and no other. Its notes' commands work;
//! `helm test` fails when no operator is there, and `helm --wait` does not take a job that nobody has looked at for done.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    command::{refused, run, run_with},
    ensure,
    fault::finally,
};

use crate::waits_like_helm::chart;

const RELEASE: &str = "one";
const OPERATOR: &str = "one-hyperflow-operator";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/hyperflow");
const GONE: Duration = Duration::from_secs(30);

pub async fn keeps(place: &Place) -> Result {
    let cluster = &place.cluster;
    // The operator of all namespaces must not serve this one meanwhile.
    let replicas = cluster.scale_operators(0).await?;
    let repair = async {
        cluster.scale_operators(replicas).await?;
        cluster.mended().await
    };
    finally(with_another(place), repair).await
}

async fn with_another(place: &Place) -> Result {
    let cluster = &place.cluster;
    let (home, elsewhere) = (cluster.place("its_operator").await?, cluster.place("not_served").await?);
    let start = Instant::now();
    while !cluster.operator_pods().await?.is_empty() {
        ensure(start.elapsed() < GONE, || "an operator is still there".into())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    install(cluster, &home, &place.namespace).await?;
    // What belongs to the cluster does not go with a namespace.
    let removed = async {
        helm(&home, &["uninstall", RELEASE]).await?;
        Ok(())
    };
    finally(serves(place, &home, &elsewhere), removed).await?;
    home.remove().await?;
    elsewhere.remove().await
}

/// With the images, and all else, of the release that is there.
async fn install(cluster: &Cluster, home: &Place, served: &str) -> Result {
    let args = ["get", "values", "hyperflow", "--namespace", &cluster.operator_namespace, "--output", "json"];
    // A release without values of its own has `null`, which is no set of values.
    let values: Option<serde_json::Value> = serde_json::from_str(&run("helm", &args).await?)?;
    let values = values.map(|values| values.to_string()).unwrap_or_default();
    let served = format!("watchNamespace={served},replicas=1");
    let home = &home.namespace;
    let args = ["install", RELEASE, CHART, "--namespace", home, "--set", &served, "--values", "-", "--wait"];
    run_with("helm", &args, &values).await?;
    Ok(())
}

async fn serves(place: &Place, home: &Place, elsewhere: &Place) -> Result {
    let unseen = elsewhere.apply(super::numbers("first")).await?;
    let account = format!("system:serviceaccount:{}:{OPERATOR}", home.namespace);
    for (resource, verb) in [("shardjobs", "list"), ("pods", "create"), ("configmaps", "create")] {
        let may = async |namespace: &str| {
            run("kubectl", &["auth", "can-i", verb, resource, "--as", &account, "--namespace", namespace]).await.is_ok()
        };
        ensure(may(&place.namespace).await, || format!("the operator may not {verb} {resource} where it serves"))?;
        ensure(!may(&elsewhere.namespace).await, || format!("the operator may {verb} {resource} elsewhere"))?;
    }

    // The notes are for people, who copy the commands: `helm test`, a first job, and waiting for it.
    let notes = helm(home, &["get", "notes", RELEASE]).await?;
    let commands: Vec<&str> = notes.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    for wanted in ["helm test", "kubectl apply", "kubectl wait"] {
        ensure(commands.iter().any(|line| line.contains(wanted)), || format!("no '{wanted}' in the notes: {notes}"))?;
    }
    run_with("sh", &["-e"], &commands.join("\n")).await?;

    let status = unseen.status().await?;
    ensure(status.observed_generation == Some(-1), || {
        format!("an operator looked at what it does not serve: {status:?}")
    })?;
    without_operator(place, home).await
}

async fn without_operator(place: &Place, home: &Place) -> Result {
    let chart = chart(place, &super::numbers("unseen"))?.display().to_string();
    let home_namespace = &home.namespace;
    run("kubectl", &["scale", "--namespace", home_namespace, "deployment", OPERATOR, "--replicas=0"]).await?;
    let gone = ["wait", "--namespace", home_namespace, "--for=delete", "pod", "--timeout=30s"];
    run("kubectl", &[&gone[..], &["--selector=app.kubernetes.io/component=operator"]].concat()).await?;
    let waiting = ["install", "unseen", &chart, "--namespace", &place.namespace, "--wait", "--timeout", "8s"];
    let (tested, waited) = futures::join!(helm(home, &["test", RELEASE]), run("helm", &waiting));
    refused("`helm test` without an operator", tested)?;
    let said = refused("`helm --wait` for a job that nobody looked at", waited)?;
    ensure(said.contains("InProgress") || said.contains("deadline"), || format!("helm failed otherwise: {said}"))
}

async fn helm(home: &Place, args: &[&str]) -> Result<String> {
    run("helm", &[args, &["--namespace", &home.namespace]].concat()).await
}
