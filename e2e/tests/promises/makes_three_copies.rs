//! One file becomes three copies in parts, while a worker is killed: each part is there three times, each copy is the file
//! byte for byte, and each shard was published once.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Attempt},
    oracle::{self, Tree},
};
use serde_json::json;

const MIB: usize = 1 << 20;
const SHARD: usize = 8 * MIB;
const BYTES: usize = 5 * SHARD + 4321;
const SHARDS: usize = 6;

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", BYTES, 3)?;
    // For each byte that is read three are written: 2 MiB of input each second and worker.
    let mut manifest = super::copy("classic", "8Mi", "8Mi", 2, 1);
    manifest["spec"]["task"] = json!({"copy": {"copies": 3}});
    manifest["spec"]["output"]["path"] = json!("copy-{copy}/part-{index}");
    let job = place.apply(manifest).await?;
    let (victim, _) = job.wait("a shard half done", Duration::from_secs(60), half_done).await?;
    place.cluster.kill(&place.worker(&victim.pod).await?).await?;
    let status = job.complete(Duration::from_secs(120)).await?;

    let output = place.path("out");
    let mut wanted = Tree::new();
    for copy in 1..=3 {
        for (index, bytes) in oracle::noise(BYTES, 3).chunks(SHARD).enumerate() {
            wanted.insert(format!("copy-{copy}/part-{index:06}"), bytes.into());
        }
    }
    oracle::same(&oracle::tree(&output)?, &wanted)?;
    let commits = oracle::commits(&output)?;
    ensure(commits == SHARDS, || format!("{commits} commits of {SHARDS} shards"))?;
    let folder = oracle::job_folder(&output)?;
    for name in ["stage", "ckpt"] {
        ensure(!folder.join(name).exists(), || format!("'{name}' is still there"))?;
    }
    let records = oracle::records(&output)?;
    let again = records.iter().find(|record| record.index == victim.index && record.attempt > 1);
    let again = again.ok_or_else(|| format!("shard {} was not run again: {records:?}", victim.index))?;
    let kept = victim.checkpoint.unwrap_or(0);
    ensure(again.resumed_from >= kept, || format!("{again:?} lost its checkpoint at {kept}"))?;
    check_report(place, &status)
}

/// An attempt that has got far; not so far that it is done when it is killed, for status is a second old.
fn half_done(status: &ShardJobStatus) -> Option<Attempt> {
    let far = |attempt: &Attempt| {
        attempt.checkpoint.is_some_and(|position| (2 * MIB as u64..=5 * MIB as u64).contains(&position))
    };
    job::attempts(status).ok()?.into_iter().find(far)
}

/// The report names all three results of each shard, which are alike.
fn check_report(place: &Place, status: &ShardJobStatus) -> Result {
    for line in oracle::report(place, status)? {
        let outputs = line["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [one, two, three] = outputs else { return Err(format!("not three outputs: {line}").into()) };
        for (copy, output) in (1..).zip([one, two, three]) {
            let url = output["url"].as_str().unwrap_or_default();
            ensure(url.starts_with(&format!("file:///data/out/copy-{copy}/")), || format!("{line}"))?;
            let (crc32c, length) = oracle::checksum(&[place.path_of(url)?])?;
            let right = output["crc32c"] == format!("{crc32c:08x}") && output["bytes"] == length;
            ensure(right, || format!("{url} has {length} bytes and CRC-32C {crc32c:08x}: {line}"))?;
        }
    }
    Ok(())
}
