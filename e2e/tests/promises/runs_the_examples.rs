//! The manifests that users copy run as they stand.

use std::{fs, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    command, ensure,
    image::test_image,
    job::{self, shards},
};
use serde_json::json;

/// Examples at a time.
const BESIDE: usize = 2;

pub async fn keeps(place: &Place) -> Result {
    for (seed, name) in (1..).zip(["huge.tar", "all.fasta", "linux.tar"]) {
        place.write_input(name, 100_000, seed)?;
    }
    place.write("in/a.txt", b"some words, and some more")?;
    place.write("in/reviews.ndjson", &b"{\"text\": \"good\"}\n".repeat(1000))?;
    let programs = format!("{}/programs/slot.py", env!("CARGO_MANIFEST_DIR"));
    let from = ["create", "configmap", "programs", "--namespace", &place.namespace, "--from-file", &programs];
    command::run("kubectl", &from).await?;
    let mut examples = Vec::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs"))? {
        let name = file?.file_name().to_string_lossy().trim_end_matches(".yaml").to_owned();
        examples.push(completes(place, name));
    }
    ensure(examples.len() >= 10, || format!("only {} examples", examples.len()))?;
    stream::iter(examples).buffer_unordered(BESIDE).try_collect().await
}

async fn completes(place: &Place, name: String) -> Result {
    let mut manifest = job::manifest(&name)?;
    // There is one claim here: what is another volume to the user is the same one.
    for volume in manifest["spec"]["workers"]["volumes"].as_array_mut().into_iter().flatten() {
        if volume.get("persistentVolumeClaim").is_some() {
            volume["persistentVolumeClaim"]["claimName"] = json!("data");
        }
    }
    // Images are those that were built here.
    let image = manifest["spec"]["task"]["exec"]["image"].as_str().map(|image| match image {
        "busybox:1" => test_image(super::BUSYBOX),
        _ => test_image(super::PYTHON),
    });
    if let Some(image) = image {
        manifest["spec"]["task"]["exec"]["image"] = json!(image);
    }
    let job = place.apply(manifest).await?;
    let status = job.complete(Duration::from_secs(90)).await.map_err(|error| format!("{name}: {error}"))?;
    ensure(shards(&status).total > 0, || format!("{name}: {:?}", status.shards))
}
