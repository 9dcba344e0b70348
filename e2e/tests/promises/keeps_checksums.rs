//! Checksums of a directory are kept beside the report, nothing else is written, and `sha256sum` itself believes them.

use std::{fs, path::PathBuf, time::Duration};

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{Result, cluster::Place, command, ensure, job::shards, oracle};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(90);

/// Names that `sha256sum` writes in its own way are among them; the large one has several checkpoints.
const FILES: &[(&str, usize)] = &[
    ("-", 1),
    ("a/back\\slash", 2),
    ("a/empty", 0),
    ("a/new\nline", 3),
    ("b/large", (3 << 20) + 5),
    ("b/spaces  in it", 4),
    ("ünï", 5000),
];

pub async fn keeps(place: &Place) -> Result {
    for (seed, (name, bytes)) in (1..).zip(FILES) {
        place.write_input(name, *bytes, seed)?;
    }
    tokio::try_join!(sha256(place), crc32c(place))?;
    let found: Vec<String> = oracle::tree(&place.path("in"))?.into_keys().collect();
    ensure(found.len() == FILES.len(), || format!("the source was written to: {found:?}"))?;
    ensure(oracle::parts(&place.path("out"))?.is_empty(), || "something was published".into())
}

async fn sha256(place: &Place) -> Result {
    let (list, status) = list(place, "sha256", "SHA256", 2, "SHA256SUMS").await?;
    ensure(shards(&status).total == 4, || format!("{:?}", status.shards))?;
    let (folder, list) = (place.path("in").display().to_string(), list.display().to_string());
    let check = "cd \"$1\" && exec sha256sum --check --strict \"$2\"";
    let said = command::run("sh", &["-c", check, "sh", &folder, &list]).await?;
    let right = said.lines().filter(|line| line.ends_with(": OK")).count();
    ensure(right == FILES.len(), || format!("sha256sum checked {right} files: {said}"))?;
    let report = oracle::report(place, &status)?;
    let inputs: usize = report.iter().map(|line| line["inputs"].as_array().map_or(0, Vec::len)).sum();
    ensure(inputs == FILES.len(), || format!("the report has {inputs} inputs: {report:?}"))?;
    let nothing = |line: &serde_json::Value| line["published"] == true && line["outputs"] == json!([]);
    ensure(report.iter().all(nothing), || format!("{report:?}"))
}

async fn crc32c(place: &Place) -> Result {
    let (list, status) = list(place, "crc32c", "CRC32C", 1, "CRC32C").await?;
    oracle::report(place, &status)?;
    let found = fs::read_to_string(list)?;
    let mut wanted = String::new();
    for (name, shown) in [
        ("-", "./-"),
        ("a/back\\slash", "a/back\\\\slash"),
        ("a/empty", "a/empty"),
        ("a/new\nline", "a/new\\nline"),
        ("b/large", "b/large"),
        ("b/spaces  in it", "b/spaces  in it"),
        ("ünï", "ünï"),
    ] {
        let (crc32c, _) = oracle::checksum(&[place.path("in").join(name)])?;
        let begin = if shown.contains('\\') { "\\" } else { "" };
        wanted.push_str(&format!("{begin}{crc32c:08x}  {shown}\n"));
    }
    ensure(found == wanted, || format!("{found:?} is not {wanted:?}"))
}

/// Runs the job; its list of checksums, beside the report.
async fn list(place: &Place, name: &str, algorithm: &str, files: u32, list: &str) -> Result<(PathBuf, ShardJobStatus)> {
    let source = json!({"files": {"url": "file:///data/in/", "boundary": "File", "filesPerShard": files}});
    let job = place.apply(super::kept(name, source, json!({"checksum": {"algorithm": algorithm}}))).await?;
    let status = job.complete(LIMIT).await?;
    let uid = job.get().await?.metadata.uid.unwrap_or_default();
    let report = status.report.clone().unwrap_or_default().url;
    ensure(report == format!("file:///data/records/{uid}/report.jsonl"), || format!("the report is at '{report}'"))?;
    Ok((place.path_of(&report)?.with_file_name(list), status))
}
