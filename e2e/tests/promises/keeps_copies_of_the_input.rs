//! Copies of the input lie on the disks of as many nodes as were asked for, shards go where theirs are, and when the
//! source is away the job finishes from them.

use std::{fs, time::Duration};

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{has, shards, whole_blocks},
    oracle,
    stores::Moved,
};
use serde_json::json;

use super::{gated, hold_back, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 48;
/// The last ones wait, so that workers can be asked what they have read.
const HELD_BACK: u32 = 40;
const REPLICAS: usize = 2;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 90)?;
    let mut manifest = gated("copies", 3, REPLICAS);
    hold_back(&mut manifest, HELD_BACK);
    // Shards that are over at once are not worth a wait for the worker that has them near.
    let script =
        manifest["spec"]["task"]["exec"]["command"][2].as_str().unwrap_or_default().replace("cat", "sleep 1; cat");
    manifest["spec"]["task"]["exec"]["command"][2] = json!(script);
    let job = place.apply(manifest).await?;
    let took = place.replicated(&job, SHARDS, REPLICAS, &[], LIMIT).await?;
    let (blocks, _) = job.wait("status to say that all is replicated", LIMIT, whole_blocks).await?;
    ensure((blocks.groups, &*blocks.kept_by) == (48, "Pod"), || format!("{blocks:?}"))?;
    let before = place.block_bytes().await?;
    let moved = before;
    let bytes = f64::from(SHARDS) * MIB as f64;
    println!("     {SHARDS} MiB on {REPLICAS} nodes each {took:.1?} after apply; {moved:?}");
    ensure(moved.loaded + moved.source <= 1.2 * bytes, || format!("the source was read more than once: {moved:?}"))?;

    // Not removed: moved away, as when a file server is gone.
    let (input, away) = (place.path("in"), place.path("away"));
    fs::rename(&input, &away)?;
    open_gate(place)?;
    let read = async {
        loop {
            let status = job.status().await?;
            if shards(&status).succeeded >= HELD_BACK as i32 {
                return place.block_bytes().await;
            }
            ensure(!has(&status, "Failed"), || format!("{:?}", status.conditions))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let moved = tokio::time::timeout(LIMIT, read).await.map_err(|_| "the shards did not end in a minute")??;
    // Shards that began before there were blocks had no choice.
    let moved = Moved {
        local: moved.local - before.local,
        peer: moved.peer - before.peer,
        source: moved.source - before.source,
        ..moved
    };
    let nodes = place.cluster.nodes().await?.len();
    let chance = REPLICAS as f64 / nodes as f64;
    println!(
        "     read locally: {:.0} % of the bytes; without a look at where blocks are, {:.0} %",
        100.0 * moved.share_local(),
        100.0 * chance
    );
    place.write("go-on", b"")?;
    let status = job.complete(LIMIT).await?;
    oracle::check_copy(&away.join("input"), &place.path("out"), SHARDS)?;
    ensure(moved.share_local() > chance, || format!("shards do not go where their blocks are: {moved:?}"))?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))?;
    let notes = status.recovery.map(|notes| json!(notes.blocks));
    ensure(notes == Some(json!("")), || format!("notes of blocks are left: {notes:?}"))
}
