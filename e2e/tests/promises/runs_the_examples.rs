//! The manifests that users copy run as they stand.

use std::{fs, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, shards},
};
use serde_json::json;

/// Examples at a time.
const BESIDE: usize = 2;

pub async fn keeps(place: &Place) -> Result {
    for (seed, name) in (1..).zip(["huge.tar", "all.fasta", "linux.tar"]) {
        place.write_input(name, 100_000, seed)?;
    }
    let mut examples = Vec::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs"))? {
        let name = file?.file_name().to_string_lossy().trim_end_matches(".yaml").to_owned();
        examples.push(completes(place, name));
    }
    ensure(examples.len() >= 6, || format!("only {} examples", examples.len()))?;
    stream::iter(examples).buffer_unordered(BESIDE).try_collect().await
}

async fn completes(place: &Place, name: String) -> Result {
    let mut manifest = job::manifest(&name)?;
    // There is one claim here: what is another volume to the user is the same one.
    for volume in manifest["spec"]["workers"]["volumes"].as_array_mut().into_iter().flatten() {
        volume["persistentVolumeClaim"]["claimName"] = json!("data");
    }
    let job = place.apply(manifest).await?;
    let status = job.complete(Duration::from_secs(90)).await.map_err(|error| format!("{name}: {error}"))?;
    ensure(shards(&status).total > 0, || format!("{name}: {:?}", status.shards))
}
