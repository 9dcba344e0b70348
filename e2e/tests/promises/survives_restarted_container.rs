//! A worker's container is killed and started again in place: the pod is the same, but the process is another worker. The
//! lease of the old one is lost at once, not when it runs out, and the new one goes on from its checkpoint.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    control::restarts,
    ensure, harness,
    job::{self, Attempt},
    oracle,
};

const MIB: u64 = 1 << 20;
/// What the kubelet may take to start a container again, and three seconds as for shards that go to another pod. The lease
/// alone would last ten.
const MOVED: Duration = Duration::from_secs(3 + 3);

pub async fn keeps(place: &Place) -> Result {
    // One worker with one slot, so that nobody else can have what the old process had: six seconds a shard.
    let times: u32 = if harness::soak() { 10 } else { 2 };
    let count = times + 1;
    let input = place.write_input("input", (12 * MIB * u64::from(count)).try_into()?, 10)?;
    let job = place.apply(super::copy("restarted", "12Mi", "4Mi", 1, 1)).await?;
    let output = place.path("out");
    let mut victims: Vec<Attempt> = Vec::new();
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = |status: &_| {
            let attempts = job::attempts(status).ok()?.into_iter();
            let fresh = |attempt: &Attempt| victims.iter().all(|victim| victim.index != attempt.index);
            attempts.filter(fresh).find(|attempt| attempt.checkpoint.is_some_and(|position| position >= 2 * MIB))
        };
        let (victim, _) = job.wait("a shard with two MiB in a checkpoint", Duration::from_secs(60), begun).await?;
        let pod = place.worker(&victim.pod).await?;
        let killed = Instant::now();
        place.cluster.kill(&pod).await?;
        let again = |status: &_| {
            let attempts = job::attempts(status).ok()?;
            attempts.iter().any(|now| now.index == victim.index && now.epoch != victim.epoch).then_some(())
        };
        job.wait("the shard to be leased again", Duration::from_secs(30), again).await?;
        took.push(killed.elapsed());
        // The kubelet says so a little later than it does it.
        while restarts(&place.worker(&victim.pod).await?) != restarts(&pod) + 1 {
            ensure(killed.elapsed() < Duration::from_secs(30), || "the container was not restarted once".into())?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        victims.push(victim);
    }
    println!("     leased again after {took:.1?}");

    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &output, count)?;
    let processes = oracle::recorders(&output)?;
    let pods: BTreeSet<&str> = processes.iter().filter_map(|name| Some(name.rsplit_once('-')?.0)).collect();
    ensure(pods.len() == 1, || format!("workers of more than one pod recorded shards: {pods:?}"))?;
    ensure(processes.len() > 1, || format!("one process did it all: {processes:?}"))?;
    for victim in &victims {
        let kept = victim.checkpoint.unwrap_or(0);
        let goes_on = |record: &&oracle::Record| {
            record.index == victim.index && record.resumed_from >= kept && record.bytes_read_again <= 2 * MIB
        };
        ensure(records.iter().any(|record| goes_on(&record)), || format!("{victim:?} was not resumed: {records:?}"))?;
    }
    ensure(took.iter().all(|took| *took <= MOVED), || format!("the shards were leased again only after {took:?}"))
}
