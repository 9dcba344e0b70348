//! A directory of files, whatever they are called and however large they are: each is copied under its name, and nothing
//! else is; and with several files in a shard each result is those files, one after the other.

use std::time::Duration;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::shards,
    oracle::{self, Tree},
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(90);

/// What is selected, with its size: the large one has several checkpoints.
const FILES: &[(&str, usize)] = &[
    (".hidden", 100),
    ("a/b/c/deep.txt", 5000),
    ("a/empty", 0),
    ("a/large.bin", (5 << 20) + 17),
    ("a/no extension", 4096),
    ("new\nline", 10),
    ("percent%20.txt", 11),
    ("quotes/it's \"one\" `of` $them\\.txt", 12),
    ("x#1", 13),
    ("x?y&z=*[1]{2}", 14),
    ("ünï/日本 語.txt", 15),
];

/// What is not: by `include`, by `exclude`, because it is a result.
const OTHERS: &[&str] = &["other/data.bin", "a/b/scratch.tmp", "out/stray"];

const INCLUDE: &[&str] = &["*", "a/**", "**/*.txt", "out/**"];

pub async fn keeps(place: &Place) -> Result {
    let mut wanted = Tree::new();
    for (seed, (name, bytes)) in (1..).zip(FILES) {
        let bytes = oracle::noise(*bytes, seed);
        place.write(&format!("in/{name}"), &bytes)?;
        wanted.insert((*name).into(), bytes);
    }
    for name in OTHERS {
        place.write(&format!("in/{name}"), b"not input")?;
    }
    under_their_names(place, &wanted).await?;
    let by_number = packed(place, &wanted, "by-number", json!({"filesPerShard": 3}), |files, _| files <= 3);
    let by_size = packed(place, &wanted, "by-size", json!({"bytesPerShard": "5Ki"}), |_, bytes| bytes <= 5 << 10);
    tokio::try_join!(by_number, by_size)?;
    Ok(())
}

async fn under_their_names(place: &Place, files: &Tree) -> Result {
    let source = json!({
        "url": "file:///data/in/", "boundary": "File", "include": INCLUDE, "exclude": ["**/*.tmp"]
    });
    // The output lies beneath the source, and something lies there already.
    let job = place.apply(super::copy_of("tree", &source, "file:///data/in/out/", "{dir}{name}")).await?;
    let status = job.complete(LIMIT).await?;
    let mut wanted = files.clone();
    wanted.insert("stray".into(), b"not input".into());
    oracle::same(&oracle::tree(&place.path("in/out"))?, &wanted)?;

    let plan = status.plan.clone().unwrap_or_default();
    let bytes: usize = files.values().map(Vec::len).sum();
    let found = (plan.files, plan.bytes, plan.shards);
    ensure(found == (11, i64::try_from(bytes)?, 11), || format!("{plan:?}"))?;
    ensure(shards(&status).succeeded == 11, || format!("{:?}", status.shards))?;
    ensure(oracle::commits(&place.path("in/out"))? == 11, || "not one commit for each file".into())?;
    // The report says the same: which file became which.
    for line in oracle::report(place, &status)? {
        let same = line["inputs"][0]["url"].as_str().and_then(|url| url.strip_prefix("file:///data/in/"))
            == line["outputs"][0]["url"].as_str().and_then(|url| url.strip_prefix("file:///data/in/out/"));
        ensure(same && line["published"] == true, || format!("{line}"))?;
    }
    Ok(())
}

/// Several files in a shard, as many as `fits` says: the results are those, in the order of their names.
async fn packed(
    place: &Place,
    files: &Tree,
    name: &str,
    limit: serde_json::Value,
    fits: fn(usize, usize) -> bool,
) -> Result {
    let mut source =
        json!({"url": "file:///data/in/", "boundary": "File", "include": INCLUDE, "exclude": ["**/*.tmp", "out/**"]});
    if let (Some(source), Some(limit)) = (source.as_object_mut(), limit.as_object()) {
        source.extend(limit.clone());
    }
    let output = format!("file:///data/out/{name}/");
    let job = place.apply(super::copy_of(name, &source, &output, "part-{index}")).await?;
    let mut packs: Vec<(usize, Vec<u8>)> = Vec::new();
    for bytes in files.values() {
        match packs.last_mut().filter(|(files, packed)| fits(files + 1, packed.len() + bytes.len())) {
            Some((files, packed)) => {
                *files += 1;
                packed.extend(bytes);
            }
            None => packs.push((1, bytes.clone())),
        }
    }
    let wanted: Tree =
        (0..).zip(packs).map(|(index, (_, bytes)): (u32, _)| (format!("part-{index:06}"), bytes)).collect();
    job.complete(LIMIT).await?;
    oracle::same(&oracle::tree(&place.path_of(&output)?)?, &wanted).map_err(|error| format!("{name}: {error}").into())
}
