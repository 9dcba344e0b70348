//! Names are taken as they are: a job's as long as one may be, and results with quotes, spaces, newlines and other letters.

use std::time::Duration;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    oracle::{self, Tree},
};
use serde_json::json;

/// As long as it may be: pods of the job have longer ones.
const NAME: &str = "a-name.with-52-characters-which-is-the-longest-there";
const DIRECTORY: &str = "it's \"日本\" %20 $HOME";

pub async fn keeps(place: &Place) -> Result {
    let input = place.write_input("input", 10_000, 1)?;
    let files = json!({"url": "file:///data/in/input", "boundary": "Byte", "bytesPerShard": "4Ki"});
    let output = format!("file:///data/out/{DIRECTORY}/");
    let path = "'q' \"ü\"\n{id}/\\ {index} of {run}*";
    let job = place.apply(super::copy_of(NAME, &files, &output, path)).await?;
    let status = job.complete(Duration::from_secs(60)).await?;
    let mut wanted = Tree::new();
    for (line, bytes) in oracle::report(place, &status)?.iter().zip(std::fs::read(input)?.chunks(4096)) {
        let id = line["id"].as_str().ok_or_else(|| format!("a shard without id: {line}"))?;
        let name = format!("'q' \"ü\"\n{id}/\\ {:06} of 1*", line["index"].as_u64().unwrap_or(u64::MAX));
        wanted.insert(name, bytes.into());
    }
    oracle::same(&oracle::tree(&place.path("out").join(DIRECTORY))?, &wanted)
}
