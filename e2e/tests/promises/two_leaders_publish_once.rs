//! Two operators lead at once for half a minute: they take the job from each other, and whoever was outdone steps down.
//! Nothing is published twice, and no status takes back what an earlier one said.

use std::time::{Duration, Instant};

use hyperflow_e2e::{
    Result,
    cluster::{Cluster, Place},
    diary::term,
    ensure, harness,
    job::{self, shards},
    oracle,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

const MIB: usize = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let together = Duration::from_secs(if harness::soak() { 120 } else { 30 });
    // Two MiB a second in all: work for as long as there are two, and for half a minute more.
    let megabytes = 2 * u32::try_from(together.as_secs())? + 60;
    let input = place.write_input("input", megabytes as usize * MIB, 6)?;
    let job = place.apply(super::copy("two-leaders", "1Mi", "2Mi", 2, 2)).await?;
    let diary = place.diary(&job).await?;
    let some_done = |status: &_| (shards(status).succeeded >= 3).then(|| term(status));
    let (before, _) = job.wait("three shards done", Duration::from_secs(60), some_done).await?;

    let cluster = &place.cluster;
    let reign = async |second: Pod| {
        let first = cluster.leader().await?.ok_or("no operator leads")?;
        let start = Instant::now();
        while start.elapsed() < together {
            both_lead(cluster, &first, &second).await?;
            let status = job.status().await?;
            ensure(!job::has(&status, "Complete"), || "the job was over before the two leaders were".into())?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(stepped_down(place, &first).await? + stepped_down(place, &second).await?)
    };
    let stepped_down = cluster.with_second_leader(reign).await?;

    let status = job.complete(Duration::from_secs(180)).await?;
    let versions = diary.close().await?.len();
    let terms = term(&status) - before;
    println!("     {terms} take-overs, {stepped_down} desks that stepped down, {versions} versions of status");
    oracle::check_copy(&input, &place.path("out"), megabytes)?;
    cluster.mended().await?;
    ensure(terms >= 1, || "the second leader never took the job over".into())?;
    ensure(stepped_down >= 1, || "no leader stepped down, though there were two".into())
}

async fn both_lead(cluster: &Cluster, first: &Pod, second: &Pod) -> Result {
    for operator in [first, second] {
        let leads = cluster.operator_counts(operator).await?.sum("hyperflow_leader", &[]);
        ensure(leads > 0.5, || format!("{:?} does not lead: there are not two", operator.metadata.name))?;
    }
    Ok(())
}

/// How many desks of this test's job an operator closed because another had taken the job over.
async fn stepped_down(place: &Place, operator: &Pod) -> Result<usize> {
    let log = place.cluster.log(operator).await?;
    let ended = |line: &&Value| {
        let end = line["end"].as_str().unwrap_or_default();
        line["namespace"] == place.namespace && (end.starts_with("Superseded") || end.starts_with("Outranked"))
    };
    Ok(log.iter().filter(ended).count())
}
