//! Specs: whatever is checked and taken can be planned, written and told to a worker.

use std::collections::BTreeSet;

use hyperflow_api::{ShardJobSpec, ids::MAX_SHARDS};
use hyperflow_core::{
    job::{Cut, Job, Listing, Named, Source},
    layout::FOLDER,
    paths::{file_path, is_plain},
};

/// A spec as JSON.
pub fn spec(bytes: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<ShardJobSpec>(bytes) {
        check(&spec);
    }
}

/// Checks it, as operator and worker do, and what a sound one promises.
pub fn check(spec: &ShardJobSpec) {
    let checked = Job::check(spec);
    // The worker checks what it is told; were it of another mind, it could do nothing.
    let told = serde_json::to_string(spec).expect("a spec is written");
    let heard: ShardJobSpec = serde_json::from_str(&told).expect("what we write is read");
    assert_eq!(Job::check(&heard), checked, "{told}");
    let job = match checked {
        Ok(job) => job,
        Err(refusal) => {
            assert!(refusal.field.starts_with("spec.") && !refusal.message.is_empty(), "{refusal}");
            return;
        }
    };
    assert!(job.slots > 0 && job.cadence.millis > 0 && job.cadence.bytes > 0 && job.retry.max_attempts > 0);
    assert!(job.bytes_per_second != Some(0));
    let Source { listing, cut } = &job.source;
    check_listing(listing);
    check_cut(cut);
    match job.counted() {
        Some(shards) => assert!(shards <= MAX_SHARDS),
        None => assert!(job.records_folder().is_some_and(|folder| folder.ends_with('/')), "the plan has no place"),
    }
    let Some(output) = &job.output else { return };
    assert!(job.publishes() && output.url.ends_with('/'));
    let name = |index: u32| {
        let (id, file) = (format!("{index:016x}"), format!("a/b/{index}.x"));
        output.name(Named { index, id: &id, file: &file, copy: 1, run: 1 })
    };
    let names: BTreeSet<String> = [0, 1, 17, MAX_SHARDS - 1].map(name).into();
    assert_eq!(names.len(), 4, "two shards have one name: {names:?}");
    for name in names {
        let stays = |part: &str| !["", ".", "..", FOLDER].contains(&part);
        assert!(name.split('/').all(stays), "'{name}' leaves its directory, or is in ours");
    }
}

fn check_listing(listing: &Listing) {
    let (url, directory) = match listing {
        Listing::File(url) | Listing::Manifest(url) => (url, false),
        Listing::Directory(url, _) => (url, true),
        Listing::ConfigMap { .. } | Listing::Items(_) | Listing::Numbers { .. } => return,
    };
    let path = file_path(url).expect("a file has a path");
    assert_eq!(path.ends_with('/'), directory, "{path}");
    assert!(is_plain(path.trim_matches('/')), "{path}");
}

fn check_cut(cut: &Cut) {
    match cut {
        Cut::Bytes { bytes } | Cut::Lines { bytes, .. } | Cut::Files { bytes: Some(bytes), .. } => {
            assert!((4 << 10..=5 << 40).contains(bytes));
        }
        Cut::Files { files, bytes: None } | Cut::Items { items: files } => assert!(*files > 0),
        Cut::Numbers { numbers } => assert!(*numbers > 0),
    }
}
