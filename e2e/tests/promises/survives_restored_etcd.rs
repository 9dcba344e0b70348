//! etcd is put back to a snapshot of a while ago: the operator takes the job over again from what status said then, finds
//! what was published since, and the job ends right.

use std::{path::Path, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, diary::term, ensure, fault::finally, job, oracle};

const MIB: usize = 1 << 20;

pub async fn keeps(place: &Place) -> Result {
    let snapshot = std::env::temp_dir().join(format!("{}.etcd", place.namespace));
    let outcome = finally(goes_back(place, &snapshot), place.cluster.mended()).await;
    std::fs::remove_file(&snapshot)?;
    outcome
}

async fn goes_back(place: &Place, snapshot: &Path) -> Result {
    let file = snapshot.to_str().ok_or("a path that is not UTF-8")?;
    let input = place.write_input("input", 96 * MIB, 60)?;
    let job = place.apply(super::copy("restored", "2Mi", "8Mi", 2, 2)).await?;
    let done = |shards: i32| move |status: &ShardJobStatus| (job::shards(status).succeeded >= shards).then_some(());
    job.wait("eight shards done", Duration::from_secs(60), done(8)).await?;
    place.cluster.harm(&["save-etcd", file]).await?;
    let then = job.status().await?;
    job.wait("eight more", Duration::from_secs(60), done(job::shards(&then).succeeded + 8)).await?;
    place.cluster.harm(&["restore-etcd", file]).await?;

    let before = term(&then);
    let taken_over = |status: &ShardJobStatus| (term(status) > before).then_some(());
    let ((), took) = job.wait("the operator to take over again", Duration::from_secs(60), taken_over).await?;
    println!("     taken over again {took:.1?} after the restore");
    job.complete(Duration::from_secs(120)).await?;
    let records = oracle::check_copy(&input, &place.path("out"), 48)?;
    // What status had forgotten was leased again, and whoever got it found it published.
    let found = records.iter().filter(|record| record.found).count();
    println!("     {found} shards published since the snapshot were found");
    ensure(found > 0, || format!("nothing of what was published since the snapshot was found: {records:?}"))
}
