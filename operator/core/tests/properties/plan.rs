//! Plans: the shards of a file, one after the other, are the file, whatever its size and theirs.

use hyperflow_api::ids::{JobUid, MAX_SHARDS};
use hyperflow_core::plan::{InputFile, Plan, PlanError, digest};
use proptest::prelude::*;

use super::checks::plan;

fn of_size(size: u64, bytes_per_shard: u64) -> Result<Plan, PlanError> {
    let file = InputFile { url: "file:///data/in".into(), size, version: "1".into() };
    Plan::of_file(&JobUid("u".into()), "blake3:f", file, bytes_per_shard)
}

#[test]
fn small_files_in_small_shards_are_cut_as_by_hand() {
    for size in 0..=200_u64 {
        let bytes: Vec<u64> = (0..size).collect();
        for bytes_per_shard in 1..=20_usize {
            let plan = of_size(size, bytes_per_shard as u64).unwrap();
            let mut by_hand = bytes.chunks(bytes_per_shard);
            for index in 0..plan.shards() {
                let piece = plan.piece(index).unwrap();
                let cut: Vec<u64> = (piece.offset..piece.offset + piece.length).collect();
                assert_eq!(by_hand.next(), Some(&cut[..]), "shard {index} of {size} bytes by {bytes_per_shard}");
            }
            assert!(by_hand.next().is_none() && plan.piece(plan.shards()).is_none());
            plan::make(size, bytes_per_shard as u64);
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
    assert_eq!(of_size(most * 4096, 4096).unwrap().shards(), MAX_SHARDS);
    assert!(matches!(of_size(most * 4096 + 1, 4096), Err(PlanError::TooManyShards { .. })));
}

#[test]
fn a_stored_plan_of_too_many_shards_is_refused() {
    let job = r#"{"format":1,"job":"u","frozen":"f","bytesPerShard":1,"shards":1000001}"#;
    let stored = format!("{job}\n{}\n", r#"{"url":"file:///x","size":1000001,"version":"1"}"#);
    assert!(matches!(Plan::decode(stored.as_bytes(), None), Err(PlanError::Form(_))));
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
        prop_assert_eq!(of_size(size, bytes_per_shard).is_ok(), shards <= MAX_SHARDS);
    }

    #[test]
    fn whatever_is_in_it_is_read_back(size in 0_u64..1 << 50, texts in any::<(String, String, String, String)>()) {
        let (job, frozen, url, version) = texts;
        let file = InputFile { url, size, version };
        let made = Plan::of_file(&JobUid(job.clone()), &frozen, file, 1 << 36).unwrap();
        let bytes = made.encode().unwrap();
        prop_assert!(made.is_of(&JobUid(job), &frozen));
        prop_assert_eq!(&Plan::decode(&bytes, Some(&digest(&bytes))).unwrap(), &made);
        plan::read(&bytes);
        prop_assert!(Plan::decode(&[&bytes[..], b"x"].concat(), None).is_err());
        prop_assert!(Plan::decode(&bytes[..bytes.len() - 1], None).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(
        size in prop_oneof![0_u64..200, any::<u64>()],
        per_shard in prop_oneof![0_u64..20, any::<u64>()],
        shards in prop_oneof![0_u32..200, any::<u32>()],
        text in "[ -~\n]{0,40}",
    ) {
        let head = format!(r#"{{"format":1,"job":"u","frozen":"f","bytesPerShard":{per_shard},"shards":{shards}}}"#);
        plan::read(format!("{head}\n{{\"url\":\"x\",\"size\":{size},\"version\":\"1\"}}\n").as_bytes());
        plan::read(text.as_bytes());
    }
}
