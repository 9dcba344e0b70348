//! Which nodes should have a group: rendezvous hashing, so that a node that comes or goes moves only its own groups.

use hyperflow_api::ids::JobUid;

/// Bits behind the point of a logarithm.
const FRACTION: u32 = 32;

/// How far a node is from a group: of all nodes, those with the least are its owners. Of two nodes, one that may hold twice
/// as much is nearer to twice as many groups. In integers, so that every operator process computes the same.
#[must_use]
pub(crate) fn distance(job: &JobUid, group: u32, node: &str, weight: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for text in [job.0.as_str(), node] {
        hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.update(&group.to_be_bytes()).finalize().as_bytes()[..8]);
    // The logarithm of a number that is spread evenly is an arrival time: divided by a weight, that of one so much faster.
    let late = u128::from(negative_log2(u64::from_be_bytes(first))) << 24;
    u64::try_from(late / u128::from(weight.max(1))).unwrap_or(u64::MAX)
}

/// What a node counts, by what its store may hold: mebibytes, but for all bits behind the first two, so that a little more
/// or less of room moves nothing.
#[must_use]
pub(crate) fn weight(capacity: u64) -> u64 {
    let mebibytes = (capacity >> 20).max(1);
    let bits = u64::BITS - mebibytes.leading_zeros();
    let cut = bits.saturating_sub(2);
    (mebibytes >> cut) << cut
}

/// `64 - log2(number)`, with [`FRACTION`] bits behind the point.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let zeros = number.leading_zeros();
    // Between one and two, with 63 bits behind the point. Squared, its logarithm doubles: bit after bit comes before the
    // point.
    let mut rest = u128::from(number << zeros);
    let mut fraction = 0_u64;
    for bit in (0..FRACTION).rev() {
        rest = (rest * rest) >> 63;
        if rest >= 1 << 64 {
            rest >>= 1;
            fraction |= 1 << bit;
        }
    }
    (u64::from(zeros + 1) << FRACTION) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(nodes: &[(&'static str, u64)], replicas: usize) -> Vec<Vec<String>> {
        let job = JobUid("uid".into());
        let nearest = |group| {
            let far = |(node, capacity): &(&'static str, u64)| (distance(&job, group, node, weight(*capacity)), *node);
            let mut all: Vec<_> = nodes.iter().map(far).collect();
            all.sort_unstable();
            all.into_iter().take(replicas).map(|(_, node)| node.to_owned()).collect()
        };
        (0..256).map(nearest).collect()
    }

    #[test]
    fn logarithms_are_right() {
        for (number, wanted) in
            [(u64::MAX, 0.0), (1 << 63, 1.0), (1 << 62, 2.0), (3 << 61, 2.0 - 0.584_962_5), (1, 64.0)]
        {
            #[allow(clippy::cast_precision_loss, reason = "a test")]
            let got = negative_log2(number) as f64 / f64::from(2.0_f32.powi(32));
            assert!((got - wanted).abs() < 1e-6, "{number}: {got} and not {wanted}");
        }
    }

    #[test]
    fn groups_are_spread_by_what_nodes_may_hold() {
        let same = owners(&[("a", 100 << 30), ("b", 100 << 30), ("c", 100 << 30), ("d", 100 << 30)], 2);
        for node in ["a", "b", "c", "d"] {
            let count = same.iter().flatten().filter(|owner| *owner == node).count();
            assert!((96..160).contains(&count), "{node} has {count} of 512");
        }
        let twice = owners(&[("a", 128 << 30), ("b", 64 << 30)], 1);
        let count = twice.iter().flatten().filter(|owner| *owner == "a").count();
        assert!((150..192).contains(&count), "{count} of 256 instead of two thirds");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_groups() {
        let four = [("a", 1 << 34), ("b", 1 << 34), ("c", 1 << 34), ("d", 1 << 34)];
        let (before, after) = (owners(&four, 2), owners(&four[..3], 2));
        for (before, after) in before.iter().zip(&after) {
            let kept = before.iter().filter(|node| *node != "d").all(|node| after.contains(node));
            assert!(kept, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn a_little_more_room_changes_nothing() {
        assert_eq!(weight(100 << 30), weight(101 << 30));
        assert!(weight(200 << 30) == 2 * weight(100 << 30) && weight(0) == 1);
    }
}
