//! Plans: the shards of the files, one after the other, are the files, whatever their sizes.

use std::{convert::Infallible, ops::Range};

use hyperflow_api::ids::{JobUid, MAX_SHARDS};
use hyperflow_core::{
    boundary::records_of,
    plan::{Draft, Entry, FileEntry, Head, PlanError, digest},
    source::Cut,
};
use proptest::prelude::*;

use super::checks::plan;

#[test]
fn small_files_in_small_shards_are_cut_as_by_hand() {
    for size in 0..=120_u64 {
        for bytes_per_shard in 1..=20 {
            plan::make(size, bytes_per_shard);
        }
    }
}

#[test]
fn at_the_ends_of_what_numbers_hold_it_is_cut_or_refused() {
    let most = u64::from(MAX_SHARDS);
    for bytes_per_shard in [0, 1, 2, 3, 4095, 4096, 5 << 40, u64::MAX / most, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let full = u128::from(most) * u128::from(bytes_per_shard.max(1));
        let around = |middle: u64| (middle.saturating_sub(2)..=middle).chain(middle..=middle.saturating_add(2));
        let full = u64::try_from(full).unwrap_or(u64::MAX);
        for size in [0, bytes_per_shard, full, u64::from(u32::MAX), u64::MAX].into_iter().flat_map(around) {
            plan::make(size, bytes_per_shard);
        }
    }
    let all = plan::of_file(most * 4096, 4096).unwrap();
    assert_eq!(plan::decode(&all, None).unwrap().shards(), MAX_SHARDS);
    assert!(matches!(plan::of_file(most * 4096 + 1, 4096), Err(PlanError::TooManyShards)));
}

/// Plans that others have stored must be read for ever, or be refused by their version.
#[test]
fn plans_of_this_form_stay_readable() {
    let read = |name: &str| {
        let path = format!("{}/../fuzz/seeds/plan/{name}", env!("CARGO_MANIFEST_DIR"));
        plan::decode(&std::fs::read(path).unwrap(), None)
    };
    for (name, shards) in [
        ("empty", 0),
        ("three", 3),
        ("packed", 2),
        ("lines", 3),
        ("items", 2),
        ("manifest", 1),
        ("largest", MAX_SHARDS),
    ] {
        assert_eq!(read(name).unwrap().shards(), shards, "{name}");
    }
    assert!(matches!(read("too-many"), Err(PlanError::Form(_))));
}

fn any_cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        (1_u32..6, prop::option::of(1_u64..60)).prop_map(|(files, bytes)| Cut::Files { files, bytes }),
        (1_u64..60).prop_map(|bytes| Cut::Bytes { bytes }),
        (1_u32..6).prop_map(|items| Cut::Items { items }),
        (1_u64..60).prop_map(|numbers| Cut::Numbers { numbers }),
    ]
}

/// The bytes of each shard of a file that is cut every `per_shard` bytes and then to records.
fn records<'a>(bytes: &'a [u8], per_shard: u64, prefix: &str) -> Vec<(Range<u64>, &'a [u8])> {
    let at = |place: u64| usize::try_from(place).unwrap();
    let size = bytes.len() as u64;
    let read = |offset: u64, buffer: &mut [u8]| -> Result<(), Infallible> {
        buffer.copy_from_slice(&bytes[at(offset)..at(offset) + buffer.len()]);
        Ok(())
    };
    let shards = (0..size.div_ceil(per_shard)).map(|index| {
        let planned = index * per_shard..((index + 1) * per_shard).min(size);
        let Ok(range) = records_of(planned, size, prefix, read);
        (range.clone(), &bytes[at(range.start)..at(range.end)])
    });
    shards.collect()
}

proptest! {
    #[test]
    fn shards_one_after_the_other_are_the_input(
        size in prop_oneof![any::<u64>(), 0_u64..1 << 20, u64::MAX - 5..],
        shift in 0_u32..64,
        step in any::<u64>(),
    ) {
        plan::make(size, (1 << shift) | (step & ((1 << shift) - 1)));
        plan::make(size, step);
    }

    #[test]
    fn with_nearly_too_many_shards_all_are_there(
        shards in MAX_SHARDS - 3..MAX_SHARDS + 3,
        bytes_per_shard in prop_oneof![1_u64..1 << 43, 1_u64..20],
        less in any::<u64>(),
    ) {
        let size = u64::from(shards) * bytes_per_shard - less % bytes_per_shard;
        plan::make(size, bytes_per_shard);
        prop_assert_eq!(plan::of_file(size, bytes_per_shard).is_ok(), shards <= MAX_SHARDS);
    }

    #[test]
    fn cutting_goes_on_wherever_it_was_left(cut in any_cut(), sizes in prop::collection::vec(0_u64..90, 0..50)) {
        plan::cut(&cut, &sizes);
    }

    #[test]
    fn whatever_is_in_it_is_read_back(size in 0_u64..1 << 50, texts in any::<(String, String, String, String)>()) {
        let (job, frozen, path, version) = texts;
        let head = Head::new(&JobUid(job.clone()), &frozen, "file:///data/in/", &Cut::Bytes { bytes: 1 << 36 });
        let (mut draft, mut bytes) = Draft::new(&head).unwrap();
        bytes.extend(draft.add(&Entry::File(FileEntry { path, url: None, size, version })).unwrap());
        bytes.extend(draft.end().unwrap());
        let plan = plan::decode(&bytes, Some(&digest(&bytes))).unwrap();
        prop_assert!(plan.is_of(&JobUid(job), &frozen));
        plan::read(&bytes);
        prop_assert!(plan::decode(&[&bytes[..], b"x"].concat(), None).is_err());
        prop_assert!(plan::decode(&bytes[..bytes.len() - 1], None).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(
        size in prop_oneof![0_u64..200, any::<u64>()],
        per_shard in prop_oneof![0_u64..20, any::<u64>()],
        shards in prop_oneof![0_u32..200, any::<u32>()],
        text in "[ -~\n]{0,40}",
    ) {
        let head = r#"{"format":2,"job":"u","frozen":"f","base":"","cut":{"bytes":{"bytes":"#;
        let entry = format!(r#"{{"path":"x","size":{size},"version":"1"}}"#);
        let foot = format!(r#"{{"entries":1,"bytes":{size},"shards":{shards},"content":"c"}}"#);
        plan::read(format!("{head}{per_shard}}}}}}}\n{entry}\n{foot}\n").as_bytes());
        plan::read(text.as_bytes());
    }

    /// Whatever the newlines: no byte is lost or doubled, every cut is at the beginning of a record, and no record is
    /// begun in a shard that is not the one whose planned bytes hold its first.
    #[test]
    fn records_stay_whole(
        bytes in prop::collection::vec(prop::sample::select(&b"\n\n\r>ab"[..]), 0..300),
        per_shard in 1_u64..40,
        prefix in prop::sample::select(&["", ">", ">a", "\r"][..]),
    ) {
        let shards = records(&bytes, per_shard, prefix);
        prop_assert_eq!(shards.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect::<Vec<u8>>(), bytes.clone());
        let begins = |at: usize| at == 0 || (bytes[at - 1] == b'\n' && bytes[at..].starts_with(prefix.as_bytes()));
        for (index, (range, content)) in shards.iter().enumerate().filter(|(_, (_, content))| !content.is_empty()) {
            let start = usize::try_from(range.start).unwrap();
            prop_assert!(begins(start), "shard {} begins at {}", index, start);
            prop_assert_eq!(range.start / per_shard, index as u64, "it begins where it was planned");
            let last = (start..start + content.len()).rev().find(|at| begins(*at)).unwrap() as u64;
            prop_assert_eq!(last / per_shard, index as u64, "its last record begins there too");
        }
    }
}
