//! A stored plan: its shards one after the other are the input.

use std::ops::ControlFlow;

use hyperflow_api::ids::{JobUid, MAX_SHARDS, ShardIndex};
use hyperflow_core::{
    cutter::Cutter,
    plan::{Draft, Entry, FileEntry, Head, Plan, PlanError, Reading, Shard, digest},
    source::Cut,
};

/// So many shards at both ends are looked at one by one.
const ENDS: u32 = 200;

/// The bytes of a plan; and, of the first sixteen, the sizes of one.
pub fn read(bytes: &[u8]) {
    if let Ok(plan) = decode(bytes, Some(&digest(bytes))) {
        assert_eq!(plan.digest(), digest(bytes));
        let summary = plan.summary(String::new());
        assert_eq!(summary.shards, plan.shards());
        for from in [0, plan.shards() / 2, plan.shards().saturating_sub(1)] {
            shards_follow_each_other(&plan, bytes, from);
        }
        let cut = decode(&bytes[..bytes.len() - 1], Some(&digest(bytes)));
        assert!(cut.is_err(), "{cut:?}");
    }
    if let Some((size, rest)) = bytes.split_first_chunk()
        && let Some((per_shard, _)) = rest.split_first_chunk()
    {
        make(u64::from_le_bytes(*size), u64::from_le_bytes(*per_shard));
    }
}

/// Reads a stored plan, as a worker does.
pub fn decode(bytes: &[u8], wanted: Option<&str>) -> Result<Plan, PlanError> {
    let mut reading = Reading::default();
    bytes.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| reading.line(line))?;
    reading.end(wanted)
}

/// A plan over one file, or a refusal for the reason that it would have too many shards.
pub fn make(size: u64, bytes_per_shard: u64) {
    let shards = size.div_ceil(bytes_per_shard.max(1));
    match of_file(size, bytes_per_shard) {
        Ok(bytes) => {
            let plan = decode(&bytes, None).expect("what we write is read");
            assert_eq!(u64::from(plan.shards()), shards);
            pieces_are_the_input(&plan, &bytes, size);
        }
        Err(error) => {
            assert!(matches!(error, PlanError::TooManyShards), "{error}");
            assert!(shards > u64::from(MAX_SHARDS), "{size} bytes in shards of {bytes_per_shard} were refused");
        }
    }
}

/// A stored plan over one file that may be cut anywhere.
pub fn of_file(size: u64, bytes: u64) -> Result<Vec<u8>, PlanError> {
    let cut = Cut::Bytes { bytes };
    let head = Head::new(&JobUid("5b1e0c44".into()), "blake3:0", "file:///data/in/", &cut);
    let (mut draft, mut stored) = Draft::new(&head)?;
    let entry = Entry::File(FileEntry { path: "huge".into(), url: None, size, version: "1".into() });
    stored.extend(draft.add(&entry)?);
    stored.extend(draft.end()?);
    Ok(stored)
}

/// The first shards from `from` on.
fn some(plan: &Plan, bytes: &[u8], from: ShardIndex) -> Vec<(ShardIndex, Shard)> {
    let mut found = Vec::new();
    let Some(mut walk) = plan.walk(from) else { return found };
    let offset = usize::try_from(walk.offset()).expect("within the plan");
    for line in bytes[offset..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let went = walk.line(line, |index, shard| {
            found.push((index, shard.clone()));
            if found.len() < ENDS as usize { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if went.expect("a plan that was read is read again").is_break() {
            break;
        }
    }
    found
}

fn shards_follow_each_other(plan: &Plan, bytes: &[u8], from: ShardIndex) {
    let shards = some(plan, bytes, from);
    assert_eq!(shards.len(), (plan.shards() - from).min(ENDS) as usize, "from shard {from}");
    for (expected, (index, _)) in (from..).zip(&shards) {
        assert_eq!(*index, expected);
    }
}

/// Each piece begins where the one before ends, all but the last are alike, and the last ends with the input.
pub fn pieces_are_the_input(plan: &Plan, bytes: &[u8], size: u64) {
    let shards = plan.shards();
    assert!(shards <= MAX_SHARDS, "{shards} shards");
    let mut end = Some(0);
    let mut like = None;
    for from in [0, shards.saturating_sub(ENDS)] {
        let mut before = (from == 0).then_some(0);
        for (index, shard) in some(plan, bytes, from) {
            let [piece] = &shard.pieces[..] else { panic!("shard {index} has {} pieces", shard.pieces.len()) };
            assert_eq!(piece.offset, before.unwrap_or(piece.offset), "shard {index}");
            assert!(piece.length > 0, "shard {index} is empty");
            let first = *like.get_or_insert(piece.length);
            assert!(index + 1 == shards || piece.length == first, "shard {index} is of another size");
            before = piece.offset.checked_add(piece.length);
            assert!(before.is_some_and(|end| end <= size), "shard {index} goes beyond the input");
        }
        end = before;
    }
    assert_eq!(end.unwrap_or(0), size, "the last shard ends with the input");
    assert!(plan.walk(shards).is_none() && plan.walk(u32::MAX).is_none());
}

/// A cutter, begun anywhere, goes on as it would have.
pub fn cut(cut: &Cut, sizes: &[u64]) {
    let mut cutter = Cutter::default();
    let mut before = 0;
    for &size in sizes {
        let mut again = cutter;
        let shards = cutter.add(cut, size);
        assert_eq!(again.add(cut, size), shards);
        let Some(shards) = shards else { return };
        assert!(shards.start == before || shards.start + 1 == before, "{shards:?} after {before}");
        assert_eq!(shards.end.max(before), cutter.shards());
        before = cutter.shards();
    }
}
