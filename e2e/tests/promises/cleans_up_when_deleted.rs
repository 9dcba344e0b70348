//! A job is deleted in the middle of its shards: its temporary files go and its results stay, and the object goes within
//! half a minute; also when the operator is away meanwhile, who does it then; and a namespace that goes waits for
//! nothing.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    ensure,
    fault::finally,
    job::{self, Job},
    oracle,
};
use kube::ResourceExt;

const MIB: usize = 1 << 20;
const FINALIZER: &str = "hyperflow.dev/temporary-files";
/// What is promised of the object.
const OBJECT: Duration = Duration::from_secs(30);
/// And of a namespace, whose own controllers take their time.
const NAMESPACE: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    let (job, folder) = under_way(place, "deleted").await?;
    job.delete().await?;
    let took = gone(&job).await?;
    println!("     deleted object gone after {took:.1?}");
    swept(place, &folder).await?;

    place.empty_output()?;
    without_operator(place).await?;

    let other = place.cluster.place("deleted_namespace").await?;
    under_way(&other, "abandoned").await?;
    other.delete_namespace().await?;
    let start = Instant::now();
    while other.exists().await? {
        ensure(start.elapsed() < NAMESPACE, || format!("namespace {} is there after a minute", other.namespace))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("     deleted namespace gone after {:.1?}", start.elapsed());
    other.remove().await
}

/// A job in the middle of its shards, with temporary files; and its folder.
async fn under_way(place: &Place, name: &str) -> Result<(Job, PathBuf)> {
    place.write_input("input", 64 * MIB, 90)?;
    let job = place.apply(super::copy(name, "4Mi", "4Mi", 2, 2)).await?;
    let busy = |status: &ShardJobStatus| {
        let attempts = job::attempts(status).ok()?;
        let far = attempts.iter().any(|attempt| attempt.checkpoint.is_some());
        (job::shards(status).succeeded >= 2 && far).then_some(())
    };
    job.wait("two shards done and a checkpoint", Duration::from_secs(60), busy).await?;
    let folder = oracle::job_folder(&place.path("out"))?;
    for temporary in ["stage", "ckpt"] {
        ensure(folder.join(temporary).exists(), || format!("there is no '{temporary}' to be cleaned up"))?;
    }
    let finalizers = job.get().await?.finalizers().to_vec();
    ensure(finalizers.iter().any(|it| it == FINALIZER), || format!("finalizers: {finalizers:?}"))?;
    Ok((job, folder))
}

async fn gone(job: &Job) -> Result<Duration> {
    let start = Instant::now();
    while job.exists().await? {
        ensure(start.elapsed() < OBJECT, || format!("the object is there after {OBJECT:?}"))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(start.elapsed())
}

/// Nothing temporary is left, the results and what proves them are, and no worker runs on.
async fn swept(place: &Place, folder: &PathBuf) -> Result {
    let start = Instant::now();
    while !place.workers().await?.is_empty() {
        ensure(start.elapsed() < OBJECT, || "workers of a deleted job run on".into())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut left = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        left.push(entry?.file_name().to_string_lossy().into_owned());
    }
    left.sort();
    ensure(left == ["plan", "pub", "records"], || format!("in the folder of a deleted job: {left:?}"))?;
    let (parts, commits) = (oracle::parts(&place.path("out"))?.len(), std::fs::read_dir(folder.join("pub"))?.count());
    ensure(commits >= 2 && parts == commits, || format!("{commits} commits, {parts} results"))
}

async fn without_operator(place: &Place) -> Result {
    let (job, folder) = under_way(place, "alone").await?;
    let cluster = &place.cluster;
    let replicas = cluster.scale_operators(0).await?;
    let repair = async {
        cluster.scale_operators(replicas).await?;
        cluster.mended().await
    };
    finally(waits(cluster, &job), repair).await?;
    let took = gone(&job).await?;
    println!("     object deleted without an operator gone {took:.1?} after there was one");
    swept(place, &folder).await
}

/// Without an operator a deleted object waits for one.
async fn waits(cluster: &Cluster, job: &Job) -> Result {
    let start = Instant::now();
    while !cluster.operator_pods().await?.is_empty() {
        ensure(start.elapsed() < OBJECT, || "an operator is still there".into())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    job.delete().await?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        ensure(job.exists().await?, || "the object went without anybody cleaning up".into())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
