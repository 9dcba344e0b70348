//! Specs: whatever is checked and taken can be planned, written and told to a worker.

use std::collections::BTreeSet;

use hyperflow_api::{ShardJobSpec, ids::MAX_SHARDS};
use hyperflow_core::{
    job::{Job, Source, file_path},
    layout::FOLDER,
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
    match &job.source {
        Source::Numbers { shards } => assert!(*shards <= MAX_SHARDS),
        Source::File { url, bytes_per_shard } => {
            assert!((4 << 10..=5 << 40).contains(bytes_per_shard));
            let path = file_path(url).expect("a file has a path");
            assert!(!path.split('/').any(|part| part == "..") && !path.ends_with('/'), "{path}");
        }
    }
    let Some(output) = &job.output else { return };
    assert!(job.publishes() && output.url.ends_with('/'));
    let names: BTreeSet<String> = [0, 1, 17, MAX_SHARDS - 1].map(|index| output.name(index)).into();
    assert_eq!(names.len(), 4, "two shards have one name: {names:?}");
    for name in names {
        let stays = |part: &str| !["", ".", "..", FOLDER].contains(&part);
        assert!(name.split('/').all(stays), "'{name}' leaves its directory, or is in ours");
    }
}
