//! The right answer, computed from the files themselves.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crc_fast::{CrcAlgorithm, Digest};
use hyperflow_api::ShardJobStatus;
use hyperflow_core::{invariants, ranges::RangeSet};
use serde::Deserialize;
use serde_json::Value;

use crate::{Result, cluster::Place, ensure};

/// Bytes that look like chance, the same for the same seed (SplitMix64).
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mut noise: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    noise.truncate(bytes);
    noise
}

/// CRC-32C and length of files, one after the other.
///
/// # Errors
/// When one cannot be read.
pub fn checksum(files: &[PathBuf]) -> Result<(u64, u64)> {
    let (mut digest, mut length) = (Digest::new(CrcAlgorithm::Crc32Iscsi), 0);
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            length += read as u64;
        }
    }
    Ok((digest.finalize(), length))
}

/// The results in an output folder, in the order of their names; nothing else may be there but our own folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn parts(output: &Path) -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(output)? {
        let entry = entry?;
        if entry.file_name() != "_hyperflow" {
            parts.push(entry.path());
        }
    }
    parts.sort();
    Ok(parts)
}

/// Small files by their paths.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Every file beneath a folder, by its path relative to it; but not what lies in our own folder there.
///
/// # Errors
/// When one cannot be read.
pub fn tree(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut waiting = vec![String::new()];
    while let Some(below) = waiting.pop() {
        let folder = folder.join(&below);
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true if name == "_hyperflow" => {}
                true => waiting.push(format!("{name}/")),
                false => drop(tree.insert(name, fs::read(entry.path())?)),
            }
        }
    }
    Ok(tree)
}

/// Refuses two trees that differ in a name or in a byte.
///
/// # Errors
/// With the first difference.
pub fn same(found: &Tree, wanted: &Tree) -> Result {
    for (name, bytes) in wanted {
        let found = found.get(name).ok_or_else(|| format!("{name:?} is not there, only {:?}", found.keys()))?;
        ensure(found == bytes, || format!("{name:?} has {} other bytes, not {}", found.len(), bytes.len()))?;
    }
    let more = found.keys().find(|name| !wanted.contains_key(*name));
    more.map_or(Ok(()), |name| Err(format!("{name:?} is there, and should not be").into()))
}

/// The objects of a report, which must be the one that status speaks of: a line for each shard, in order.
///
/// # Errors
/// When it is not.
pub fn report(place: &Place, status: &ShardJobStatus) -> Result<Vec<Value>> {
    let said = status.report.as_ref().ok_or("status has no report")?;
    let bytes = fs::read(place.path_of(&said.url)?).map_err(|error| format!("{}: {error}", said.url))?;
    let digest = format!("blake3:{}", blake3::hash(&bytes).to_hex());
    ensure(digest == said.digest, || format!("{} has digest {digest}, status says {}", said.url, said.digest))?;
    let read = |line| Ok(serde_json::from_str(line)?);
    let lines = std::str::from_utf8(&bytes)?.lines().map(read).collect::<Result<Vec<Value>>>()?;
    let total = status.shards.as_ref().map_or(0, |shards| shards.total);
    let indexes: Vec<Option<i64>> = lines.iter().map(|line| line["index"].as_i64()).collect();
    let wanted: Vec<Option<i64>> = (0..i64::from(total)).map(Some).collect();
    ensure(indexes == wanted, || format!("the report has shards {indexes:?} of {total}"))?;
    Ok(lines)
}

/// A line of a worker's record file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Which shard.
    pub index: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// Where it ran.
    pub node: String,
    /// Bytes of the result.
    pub bytes: u64,
    /// CRC-32C of the result, in hex.
    pub crc32c: String,
    /// How long the attempt took.
    pub millis: u64,
    /// Where the attempt went on from.
    pub resumed_from: u64,
    /// Bytes of input that an earlier attempt had read already.
    pub bytes_read_again: u64,
    /// Another attempt had published before.
    pub found: bool,
}

/// All records of published shards of the only job in an output folder. Beside them stand those of attempts that failed.
///
/// # Errors
/// When there is not exactly one job, or a record is not of the documented form.
pub fn records(output: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for file in fs::read_dir(job_folder(output)?.join("records"))? {
        let text = fs::read_to_string(file?.path())?;
        for line in text.lines() {
            let malformed = |error| format!("record '{line}': {error}");
            let record: Value = serde_json::from_str(line).map_err(malformed)?;
            if record.get("class").is_none() {
                records.push(serde_json::from_value(record).map_err(malformed)?);
            }
        }
    }
    records.sort_by_key(|record: &Record| (record.index, record.found));
    Ok(records)
}

/// The processes that recorded shards of the only job in an output folder, each as `{pod UID}-{nonce}`.
///
/// # Errors
/// When there is not exactly one job, or its records cannot be read.
pub fn recorders(output: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(job_folder(output)?.join("records"))? {
        names.push(file?.file_name().to_string_lossy().trim_end_matches(".jsonl").to_owned());
    }
    Ok(names)
}

/// Our folder of the only job in an output folder.
///
/// # Errors
/// When there is not exactly one job.
pub fn job_folder(output: &Path) -> Result<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(output.join("_hyperflow"))? {
        let entry = entry?;
        if entry.file_name() != "claims" {
            folders.push(entry.path());
        }
    }
    match &folders[..] {
        [folder] => Ok(folder.clone()),
        _ => Err(format!("expected the folder of one job, found {folders:?}").into()),
    }
}

/// How many shards of the only job in an output folder are committed.
///
/// # Errors
/// When there is not exactly one job, or its folder cannot be read.
pub fn commits(output: &Path) -> Result<usize> {
    let mut commits = 0;
    for entry in fs::read_dir(job_folder(output)?.join("pub"))? {
        // Beside them lie the files of commits that name several.
        commits += usize::from(entry?.file_type()?.is_file());
    }
    Ok(commits)
}

/// Everything that must hold of a copy that is complete: byte-identical, each shard published once by one commit, each
/// recorded, nothing temporary left.
///
/// # Errors
/// With the first promise that is broken.
pub fn check_copy(input: &Path, output: &Path, shards: u32) -> Result<Vec<Record>> {
    let parts = parts(output)?;
    ensure(parts.len() == shards as usize, || format!("{} results, expected {shards}", parts.len()))?;
    let (wanted, found) = (checksum(&[input.to_owned()])?, checksum(&parts)?);
    ensure(wanted == found, || format!("the results' checksum and length are {found:?}, the input's {wanted:?}"))?;
    let folder = job_folder(output)?;
    for (index, part) in parts.iter().enumerate() {
        let commit = folder.join("pub").join(index.to_string());
        let same = fs::metadata(&commit)?.ino() == fs::metadata(part)?.ino();
        ensure(same, || format!("{} is not what was committed as {}", part.display(), commit.display()))?;
    }
    let records = records(output)?;
    let all = RangeSet::of(0..shards);
    let commits = folder.join("pub");
    invariants::status_never_leads(&all, |index| commits.join(index.to_string()).is_file())?;
    // There may be no winner: one that died between its commit and its record. Who found the commit recorded it.
    invariants::one_winner_each(records.iter().map(|record| (record.index, record.found)))?;
    invariants::results_are_recorded(&all, |index| records.iter().any(|record| record.index == index))?;
    let mut results = Vec::new();
    for record in &records {
        let found = checksum(&[commits.join(record.index.to_string())])?;
        results.push((record.index, Some(found), (u64::from_str_radix(&record.crc32c, 16)?, record.bytes)));
    }
    invariants::outputs_are_right(results)?;
    let left: Vec<&str> = ["stage", "ckpt"].into_iter().filter(|name| folder.join(name).exists()).collect();
    invariants::nothing_temporary_is_left(&left)?;
    Ok(records)
}
