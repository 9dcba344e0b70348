//! A file changes while the job runs. By default the job fails, and says so, before a byte of the new content is in a
//! result; with `onChange: UseBlocks` it finishes from copies of what was planned.

use std::{fs, time::Duration};

use hyperflow_e2e::{Result, cluster::Place, ensure, oracle};
use serde_json::json;

use super::{close_gate, gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    let planned = oracle::noise(SHARDS as usize * MIB, 91);
    let changed = oracle::noise(SHARDS as usize * MIB, 92);

    place.write("in/input", &planned)?;
    let job = place.apply(gated("fails", 2, 2)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    place.write("in/input", &changed)?;
    open_gate(place)?;
    let (reason, message) = job.failed(LIMIT).await?;
    ensure(reason == "InputChanged" && message.contains("input"), || format!("{reason}: {message}"))?;
    let mut results = 0;
    for part in oracle::parts(&place.path("out"))? {
        let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let index: usize = name.trim_start_matches("part-").parse()?;
        ensure(fs::read(&part)? == planned[index * MIB..(index + 1) * MIB], || format!("{name} has other bytes"))?;
        results += 1;
    }
    println!("     failed as InputChanged with {results} results of the planned content");

    place.empty_output()?;
    close_gate(place)?;
    let original = place.write("original", &planned)?;
    place.write("in/input", &planned)?;
    let mut manifest = gated("goes-on", 2, 2);
    manifest["spec"]["source"]["files"]["onChange"] = json!("UseBlocks");
    let job = place.apply(manifest).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    place.write("in/input", &changed)?;
    open_gate(place)?;
    let status = job.complete(LIMIT).await?;
    oracle::check_copy(&original, &place.path("out"), SHARDS)?;
    ensure(status.failures.is_empty(), || format!("{:?}", status.failures))
}
