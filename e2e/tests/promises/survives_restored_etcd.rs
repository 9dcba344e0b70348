//! etcd is put back to a snapshot of a while ago: the operator, which was another process then, takes the job over again from
//! what status said, under a term that was given out before; what was published since is found, and the job ends right.

use std::{path::Path, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_core::ledger::takeover_of;
use hyperflow_e2e::{Result, cluster::Place, diary::term, ensure, fault::finally, job, oracle};

const MIB: usize = 1 << 20;
/// Of two MiB, four a second: work for half a minute.
const SHARDS: u32 = 96;

pub async fn keeps(place: &Place) -> Result {
    let snapshot = std::env::temp_dir().join(format!("{}.etcd", place.namespace));
    let outcome = finally(goes_back(place, &snapshot), place.cluster.mended()).await;
    std::fs::remove_file(&snapshot)?;
    outcome
}

async fn goes_back(place: &Place, snapshot: &Path) -> Result {
    let file = snapshot.to_str().ok_or("a path that is not UTF-8")?;
    let input = place.write_input("input", SHARDS as usize * 2 * MIB, 60)?;
    let job = place.apply(super::copy("restored", "2Mi", "8Mi", 2, 2)).await?;
    let eight = |status: &ShardJobStatus| (job::shards(status).succeeded >= 8).then_some(());
    job.wait("eight shards done", Duration::from_secs(60), eight).await?;
    place.cluster.harm(&["save-etcd", file]).await?;
    let then = job.status().await?;
    let known = job::shards(&then).succeeded;

    // An operator that the snapshot knows would write all it remembers into the restored status, if it comes to that before it
    // notices the restore. The one that leads now must not: its term is nobody's after the restore.
    place.cluster.kill_leader().await?;
    let led_anew = |status: &ShardJobStatus| {
        let forgotten = term(status) > term(&then) && job::shards(status).succeeded >= known + 8;
        takeover_of(status).filter(|_| forgotten)
    };
    let (lost, _) = job.wait("eight more, and a new leader", Duration::from_secs(60), led_anew).await?;
    place.cluster.harm(&["restore-etcd", file]).await?;

    // Terms repeat, take-overs do not (P1).
    let taken_over = |status: &ShardJobStatus| takeover_of(status).filter(|_| term(status) > term(&then));
    let (next, took) = job.wait("the operator to take over again", Duration::from_secs(60), taken_over).await?;
    println!("     taken over again {took:.1?} after the restore");
    ensure(next != lost, || format!("the operator went on with {lost:?} that the restore has undone"))?;
    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), SHARDS)?;
    // What status had forgotten was leased again, and whoever got it found it published.
    let found = records.iter().filter(|record| record.found).count();
    println!("     {found} shards published since the snapshot were found");
    ensure(found >= 8, || format!("what was published since the snapshot was not found: {records:?}"))
}
