//! A node is cordoned: its workers get no more leases, and the pool is filled up on the other node. A node is drained: its
//! workers hand their shards back with checkpoints, and none of it counts as a failure.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    fault::finally,
    job::{self, Attempt, Job},
    oracle,
};

const MIB: u64 = 1 << 20;
/// The cordon is seen, and what was granted until then is in status.
const NOTICED: Duration = Duration::from_secs(2);

pub async fn keeps(place: &Place) -> Result {
    let repair = || async {
        for node in place.cluster.nodes().await? {
            place.cluster.cordon(&node, false).await?;
        }
        place.cluster.mended().await
    };
    finally(is_cordoned(place), repair()).await?;
    place.empty_output()?;
    finally(is_drained(place), repair()).await
}

async fn is_cordoned(place: &Place) -> Result {
    let input = place.write_input("input", 64 * MIB as usize, 40)?;
    // 32 shards of a second each on two slots a worker.
    let job = place.apply(super::copy("cordoned", "2Mi", "8Mi", 2, 2)).await?;
    let node = job.busy_on_two(&place.cluster).await?;
    place.cluster.cordon(&node, true).await?;
    gets_no_more(&job, &node).await?;
    let status = job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 32)?;
    ensure(records.iter().all(|record| record.attempt == 1), || format!("a cordon ended attempts: {records:?}"))?;
    ensure(status.failures.is_empty(), || format!("a cordon is no failure: {:?}", status.failures))
}

/// Watches until others were given new leases: a worker of the node must have had none since the cordon was noticed.
async fn gets_no_more(job: &Job, node: &str) -> Result {
    let leases = |attempts: &[Attempt], here: bool| -> BTreeSet<String> {
        attempts.iter().filter(|it| (it.node == node) == here).map(|it| it.epoch.clone()).collect()
    };
    let start = Instant::now();
    let (mut before, mut elsewhere) = (BTreeSet::new(), None);
    let mut broken = None;
    let seen_enough = |status: &ShardJobStatus| {
        let attempts = job::attempts(status).ok()?;
        let here = leases(&attempts, true);
        if start.elapsed() < NOTICED {
            before.extend(here);
            return None;
        }
        broken = here.difference(&before).next().cloned();
        let others = leases(&attempts, false);
        let known = elsewhere.get_or_insert_with(|| others.clone());
        (broken.is_some() || others.difference(known).count() >= 2).then_some(())
    };
    job.wait("leases elsewhere", Duration::from_secs(30), seen_enough).await?;
    match broken {
        Some(epoch) => Err(format!("a worker on a cordoned node was given lease {epoch}").into()),
        None => Ok(()),
    }
}

async fn is_drained(place: &Place) -> Result {
    let input = place.write_input("input", 64 * MIB as usize, 41)?;
    // 8 shards of eight seconds each on two slots a worker.
    let job = place.apply(super::copy("drained", "8Mi", "4Mi", 2, 2)).await?;
    let node = &job.busy_on_two(&place.cluster).await?;
    let far = |status: &ShardJobStatus| {
        let far = |it: Attempt| it.node == *node && it.checkpoint.is_some_and(|position| position >= MIB);
        job::attempts(status).ok()?.into_iter().any(far).then_some(())
    };
    job.wait("a checkpoint on the node", Duration::from_secs(60), far).await?;
    place.cluster.drain(node).await?;
    let left = on(place, node).await?;
    ensure(left.is_empty(), || format!("workers stay on a drained node: {left:?}"))?;

    // A status that is a second old speaks of the pool before.
    let full = |status: &ShardJobStatus| {
        let elsewhere = job::attempts(status).ok()?.iter().all(|attempt| attempt.node != *node);
        (elsewhere && status.workers.clone()?.ready == 2).then_some(())
    };
    let ((), took) = job.wait("a pool of two again, elsewhere", Duration::from_secs(30), full).await?;
    println!("     two workers again {took:.1?} after the drain");
    let status = job.complete(Duration::from_secs(120)).await?;
    let left = on(place, node).await?;
    ensure(left.is_empty(), || format!("a pod was bound to a cordoned node: {left:?}"))?;

    let records = oracle::check_copy(&input, &place.path("out"), 8)?;
    ensure(records.iter().any(|record| record.resumed_from > 0), || format!("nothing was resumed: {records:?}"))?;
    let again: u64 = records.iter().map(|record| record.bytes_read_again).sum();
    ensure(again <= 2 * MIB, || format!("{again} bytes were read twice: {records:?}"))?;
    let charged = records.iter().find(|record| record.attempt > 1);
    ensure(charged.is_none(), || format!("a drain uses up no attempts: {charged:?}"))?;
    let worse = status.failures.iter().find(|sample| sample.class != "Evicted");
    ensure(worse.is_none(), || format!("a drain is no failure: {worse:?}"))
}

/// Names of the workers on a node that are not on their way out.
async fn on(place: &Place, node: &str) -> Result<Vec<String>> {
    let there = place.workers().await?.into_iter();
    let there = there.filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node)));
    Ok(there.filter_map(|pod| pod.metadata.name).collect())
}
