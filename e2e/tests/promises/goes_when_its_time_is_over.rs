//! A job that has ended is deleted so many seconds later as it says, whoever leads by then; its results stay. One that says
//! nothing stays.

use std::time::{Duration, Instant};

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, job::Job, oracle};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, api::ListParams};
use serde_json::json;

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// How much later than it says it may go: turns that fail come again, and another operator may have to take over.
const LATE: Duration = Duration::from_secs(20);
/// The end is told in whole seconds, and known here a moment later.
const EARLY: Duration = Duration::from_millis(2500);

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 4 * MIB, 62)?;
    let with_ttl = |name: &str, seconds: u64| {
        let mut manifest = super::copy(name, "1Mi", "1G", 1, 2);
        manifest["spec"]["ttlSecondsAfterFinished"] = seconds.into();
        manifest
    };
    let short = place.apply(with_ttl("short", 4)).await?;
    short.complete(LIMIT).await?;
    goes(&short, Instant::now(), Duration::from_secs(4)).await?;
    let objects = swept(place).await?;
    println!("     its objects were gone {objects:.1?} later");
    oracle::check_copy(&input, &place.path("out"), 4)?;

    // What failed goes as well, and at once if it says so.
    place.empty_output()?;
    let mut manifest = with_ttl("failed", 0);
    manifest["spec"]["source"]["files"]["url"] = json!("file:///data/in/nothing");
    let failed = place.apply(manifest).await?;
    let start = Instant::now();
    while failed.exists().await? {
        ensure(start.elapsed() < LIMIT, || "a job that failed is still there".into())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Nobody who saw the end is there any more when the time is over.
    place.empty_output()?;
    let kept = place.apply(super::copy("kept", "1Mi", "1G", 1, 2)).await?;
    kept.complete(LIMIT).await?;
    place.empty_output()?;
    let long = place.apply(with_ttl("long", 20)).await?;
    long.complete(LIMIT).await?;
    let ended = Instant::now();
    let killed = async {
        for operator in place.cluster.operator_pods().await? {
            place.cluster.kill(&operator).await?;
        }
        goes(&long, ended, Duration::from_secs(20)).await
    };
    finally(killed, place.cluster.mended()).await?;
    oracle::check_copy(&input, &place.path("out"), 4)?;
    ensure(kept.exists().await?, || "a job without a time to live was deleted".into())
}

/// Goes after so long, and not before.
async fn goes(job: &Job, ended: Instant, ttl: Duration) -> Result {
    while job.exists().await? {
        ensure(ended.elapsed() < ttl + LATE, || {
            format!("{} is there {:.1?} after its end", job.name, ended.elapsed())
        })?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = ended.elapsed();
    println!("     {} went {took:.1?} after its end, having {ttl:?}", job.name);
    ensure(took + EARLY >= ttl, || format!("{} went too soon, after {took:.1?}", job.name))
}

/// Waits until nothing of the job is left in the cluster.
async fn swept(place: &Place) -> Result<Duration> {
    let (start, client, all) = (Instant::now(), place.cluster.client.clone(), ListParams::default());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &place.namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client, &place.namespace);
    while !pods.list(&all).await?.items.is_empty() || maps.get_opt("short-hyperflow-ca").await?.is_some() {
        ensure(start.elapsed() < LIMIT, || "pods or a ConfigMap of a deleted job are there".into())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(start.elapsed())
}
