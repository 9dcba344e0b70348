//! What is processed, checked.

use hyperflow_api::{
    ids::MAX_SHARDS,
    source::{self, Boundary},
    workers::VolumeMount,
};
use serde::{Deserialize, Serialize};

use crate::{
    job::{Refusal, amount, refuse},
    paths::{check_mounted, check_url},
    selection::Selection,
};

/// Most whole files in a shard when only `bytesPerShard` limits them.
const FILES_PER_SHARD: u32 = 100_000;

/// What is processed.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Where its entries come from.
    pub listing: Listing,
    /// How they become shards.
    pub cut: Cut,
}

/// Where the list of entries comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Listing {
    /// One file.
    File(String),
    /// Everything selected beneath a directory; ends with '/'.
    Directory(String, Box<Selection>),
    /// The lines of a file.
    Manifest(String),
    /// The lines of a key of a ConfigMap, which is mounted into the worker.
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// The key.
        key: String,
    },
    /// Items that stand in the spec.
    Items(Vec<String>),
    /// Whole numbers.
    Numbers {
        /// The first.
        start: i64,
        /// How many.
        count: u64,
    },
}

/// How entries become shards. Stands in the plan in this form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Cut {
    /// Whole files, one after the other, while there are no more than so many of them and of their bytes.
    Files {
        /// Most files in a shard.
        files: u32,
        /// Most bytes in a shard; a file that has more is a shard alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// Each file every so many bytes.
    Bytes {
        /// Of a shard; the last one of a file is what remains.
        bytes: u64,
    },
    /// The same, and each cut moves forward to the next start of a record.
    Lines {
        /// Of a shard, before its ends move.
        bytes: u64,
        /// A line that starts so begins a record; empty: each does.
        prefix: String,
    },
    /// So many items.
    Items {
        /// Items in a shard.
        items: u32,
    },
    /// So many numbers.
    Numbers {
        /// Numbers in a shard.
        numbers: u64,
    },
}

impl Cut {
    /// Each shard is one whole file: it can be named after it.
    #[must_use]
    pub fn is_one_file(&self) -> bool {
        matches!(self, Self::Files { files: 1, .. })
    }

    /// Each shard is one piece of one file.
    #[must_use]
    pub fn is_one_piece(&self) -> bool {
        self.is_one_file() || matches!(self, Self::Bytes { .. } | Self::Lines { .. })
    }

    /// Shards are made of files, not of items or numbers.
    #[must_use]
    pub fn is_of_files(&self) -> bool {
        !matches!(self, Self::Items { .. } | Self::Numbers { .. })
    }
}

impl Source {
    /// How many shards the spec alone says there are: planning numbers, and items that stand in it, is arithmetic.
    #[must_use]
    pub fn counted(&self) -> Option<u32> {
        let shards = match (&self.listing, &self.cut) {
            (Listing::Items(values), Cut::Items { items }) => values.len().div_ceil((*items).max(1) as usize) as u64,
            (Listing::Numbers { count, .. }, Cut::Numbers { numbers }) => count.div_ceil((*numbers).max(1)),
            _ => return None,
        };
        u32::try_from(shards).ok()
    }
}

pub(crate) fn check(source: &source::Source, mounts: &[VolumeMount]) -> Result<Source, Refusal> {
    match (&source.files, &source.items, &source.numbers) {
        (Some(files), None, None) => Ok(Source { listing: check_listing(files, mounts)?, cut: check_cut(files)? }),
        (None, Some(items), None) => check_items(items, mounts),
        (None, None, Some(numbers)) => check_numbers(numbers),
        _ => refuse("spec.source", "must set exactly one of `files`, `items` and `numbers`"),
    }
}

fn check_listing(files: &source::Files, mounts: &[VolumeMount]) -> Result<Listing, Refusal> {
    const URL: &str = "spec.source.files.url";
    let selection = Selection::new(&files.include, &files.exclude)?;
    match (&files.url, &files.manifest) {
        (Some(url), None) => {
            check_url(URL, url)?;
            check_mounted(URL, url, mounts)?;
            Ok(match url.ends_with('/') {
                true => Listing::Directory(url.clone(), Box::new(selection)),
                false if files.include.is_empty() && files.exclude.is_empty() => Listing::File(url.clone()),
                false => {
                    return refuse(URL, "must end with '/' to be a directory that `include` and `exclude` select from");
                }
            })
        }
        (None, Some(_)) if !(files.include.is_empty() && files.exclude.is_empty()) => refuse(
            "spec.source.files.manifest",
            "a manifest names its files one by one: remove `include` and `exclude`",
        ),
        (None, Some(manifest)) => check_manifest(manifest, mounts),
        _ => refuse("spec.source.files", "must set exactly one of `url` and `manifest`"),
    }
}

fn check_manifest(manifest: &source::Manifest, mounts: &[VolumeMount]) -> Result<Listing, Refusal> {
    const URL: &str = "spec.source: manifest.url";
    match (&manifest.url, &manifest.config_map_key_ref) {
        (Some(url), None) => {
            check_url(URL, url)?;
            check_mounted(URL, url, mounts)?;
            if url.ends_with('/') {
                return refuse(URL, "must name one file: it may not end with '/'");
            }
            Ok(Listing::Manifest(url.clone()))
        }
        (None, Some(map)) => Ok(Listing::ConfigMap { name: map.name.clone(), key: map.key.clone() }),
        _ => refuse("spec.source: manifest", "must set exactly one of `url` and `configMapKeyRef`"),
    }
}

fn check_cut(files: &source::Files) -> Result<Cut, Refusal> {
    const BYTES: &str = "spec.source.files.bytesPerShard";
    let bytes = amount(BYTES, files.bytes_per_shard.as_ref())?;
    if bytes.is_some_and(|bytes| !(4 << 10..=5 << 40).contains(&bytes)) {
        return refuse(BYTES, "must be between 4Ki and 5Ti");
    }
    if files.record_prefix.is_some() && files.boundary != Boundary::Line {
        return refuse("spec.source.files.recordPrefix", "may only be set when `boundary` is 'Line'");
    }
    if files.files_per_shard.is_some() && files.boundary != Boundary::File {
        return refuse("spec.source.files.filesPerShard", "may only be set when `boundary` is 'File'");
    }
    let some = |bytes: Option<u64>| match bytes {
        Some(bytes) => Ok(bytes),
        None => {
            let message = "is required when `boundary` is 'Line' or 'Byte': say how large a shard is, for example 64Mi";
            refuse(BYTES, message)
        }
    };
    match files.boundary {
        Boundary::File => {
            let most = files.files_per_shard.map(|files| u32::try_from(files).unwrap_or(0));
            match most.unwrap_or(if bytes.is_some() { FILES_PER_SHARD } else { 1 }) {
                files @ 1..=FILES_PER_SHARD => Ok(Cut::Files { files, bytes }),
                _ => refuse("spec.source.files.filesPerShard", format!("must be between 1 and {FILES_PER_SHARD}")),
            }
        }
        Boundary::Byte => Ok(Cut::Bytes { bytes: some(bytes)? }),
        Boundary::Line => {
            Ok(Cut::Lines { bytes: some(bytes)?, prefix: files.record_prefix.clone().unwrap_or_default() })
        }
        Boundary::Unknown => refuse(
            "spec.source.files.boundary",
            "is not known to this version of the operator; use 'File', 'Line' or 'Byte'",
        ),
    }
}

fn check_items(items: &source::Items, mounts: &[VolumeMount]) -> Result<Source, Refusal> {
    const FIELD: &str = "spec.source.items";
    let Ok(per_shard @ 1..) = u32::try_from(items.items_per_shard) else {
        return refuse(FIELD, "`itemsPerShard` must be 1 or more");
    };
    let cut = Cut::Items { items: per_shard };
    match (&items.values, &items.manifest) {
        (Some(values), None) => {
            counted(Source { listing: Listing::Items(values.clone()), cut }, FIELD, "itemsPerShard")
        }
        (None, Some(manifest)) => Ok(Source { listing: check_manifest(manifest, mounts)?, cut }),
        _ => refuse(FIELD, "must set exactly one of `values` and `manifest`"),
    }
}

fn check_numbers(numbers: &source::Numbers) -> Result<Source, Refusal> {
    const FIELD: &str = "spec.source.numbers";
    /// Beyond this a JSON number is not exact.
    const EXACT: u64 = 1 << 53;
    let (Ok(count), Ok(per_shard @ 1..)) = (u64::try_from(numbers.count), u64::try_from(numbers.numbers_per_shard))
    else {
        return refuse(FIELD, "`count` must be 0 or more and `numbersPerShard` 1 or more");
    };
    let start = numbers.start;
    if start.unsigned_abs() >= EXACT || count >= EXACT {
        return refuse(FIELD, "`start` and `count` must be less than 9007199254740992");
    }
    let source = Source { listing: Listing::Numbers { start, count }, cut: Cut::Numbers { numbers: per_shard } };
    counted(source, FIELD, "numbersPerShard")
}

fn counted(source: Source, field: &'static str, raise: &str) -> Result<Source, Refusal> {
    match source.counted() {
        Some(shards) if shards <= MAX_SHARDS => Ok(source),
        _ => refuse(field, format!("makes more than {MAX_SHARDS} shards; raise `{raise}`")),
    }
}
