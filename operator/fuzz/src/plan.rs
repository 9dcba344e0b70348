//! A stored plan: its shards one after the other are the input.

use hyperflow_api::ids::{JobUid, MAX_SHARDS};
use hyperflow_core::plan::{InputFile, Plan, PlanError, digest};

/// So many shards at both ends are looked at one by one.
const ENDS: u32 = 200;

/// The bytes of a plan; and, of the first sixteen, the sizes of one.
pub fn read(bytes: &[u8]) {
    if let Ok(plan) = Plan::decode(bytes, Some(&digest(bytes))) {
        let again = plan.encode().expect("every plan is written");
        assert_eq!(Plan::decode(&again, None).expect("what we write is read"), plan);
        let summary = plan.summary(bytes, String::new());
        assert_eq!((summary.shards, &summary.digest), (plan.shards(), &digest(bytes)));
        pieces_are_the_input(&plan, summary.bytes);
        let cut = Plan::decode(&bytes[..bytes.len() - 1], Some(&digest(bytes)));
        assert!(matches!(cut, Err(PlanError::Digest { .. })), "{cut:?}");
    }
    if let Some((size, rest)) = bytes.split_first_chunk()
        && let Some((per_shard, _)) = rest.split_first_chunk()
    {
        make(u64::from_le_bytes(*size), u64::from_le_bytes(*per_shard));
    }
}

/// A plan of these sizes, or a refusal for the reason that it would have too many shards.
pub fn make(size: u64, bytes_per_shard: u64) {
    let file = InputFile { url: "file:///data/in".into(), size, version: "1".into() };
    let shards = size.div_ceil(bytes_per_shard.max(1));
    match Plan::of_file(&JobUid("5b1e0c44".into()), "blake3:0", file, bytes_per_shard) {
        Ok(plan) => {
            assert_eq!(u64::from(plan.shards()), shards);
            pieces_are_the_input(&plan, size);
            let bytes = plan.encode().expect("every plan is written");
            assert_eq!(Plan::decode(&bytes, None).expect("what we write is read"), plan);
        }
        Err(error) => {
            assert!(matches!(error, PlanError::TooManyShards { .. }), "{error}");
            assert!(shards > u64::from(MAX_SHARDS), "{size} bytes in shards of {bytes_per_shard} were refused");
        }
    }
}

/// Each piece begins where the one before ends, all but the last are alike, and the last ends with the input.
pub fn pieces_are_the_input(plan: &Plan, size: u64) {
    let shards = plan.shards();
    assert!(shards <= MAX_SHARDS, "{shards} shards");
    let end = |index: u32| plan.piece(index).map(|piece| piece.offset + piece.length);
    let first = plan.piece(0).map(|piece| piece.length);
    for index in (0..shards.min(ENDS)).chain(shards.saturating_sub(ENDS).max(ENDS)..shards) {
        let piece = plan.piece(index).expect("every shard has a piece");
        let before = if index == 0 { Some(0) } else { end(index - 1) };
        assert_eq!(Some(piece.offset), before, "shard {index}");
        assert!(piece.length > 0, "shard {index} is empty");
        assert!(index + 1 == shards || Some(piece.length) == first, "shard {index} is of another size");
        assert!(piece.offset + piece.length <= size, "shard {index} goes beyond the input");
    }
    assert_eq!(shards.checked_sub(1).map_or(Some(0), end), Some(size), "the last shard ends with the input");
    assert!(plan.piece(shards).is_none() && plan.piece(u32::MAX).is_none());
}
