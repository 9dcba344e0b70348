//! Sets of shards: what is read is what the text says, in the one form that is written.

use hyperflow_api::ids::MAX_SHARDS;
use hyperflow_core::ranges::RangeSet;

/// The text of a set.
pub fn set(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(set) = text.parse::<RangeSet>() else { return };
    let written = set.to_string();
    assert!(written.len() <= text.len(), "'{written}' is longer than '{text}'");
    assert_eq!(written.parse::<RangeSet>().as_ref(), Ok(&set));
    let mut end = None;
    let mut count = 0;
    for range in set.ranges() {
        assert!(range.start < range.end && range.end <= MAX_SHARDS, "{range:?}");
        assert!(end.is_none_or(|end| range.start > end), "{range:?} touches the one before");
        assert!(set.contains(range.start) && set.contains(range.end - 1) && !set.contains(range.end));
        count += range.end - range.start;
        end = Some(range.end);
    }
    assert_eq!((set.len(), set.is_empty()), (count, count == 0));
    assert_eq!(set.first(), set.iter().next());
    // Word for word: each part is in the set, and there is nothing else in it.
    let mut said = 0;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (start, last) = part.split_once('-').unwrap_or((part, part));
        let (start, last): (u32, u32) = (start.parse().expect("a number"), last.parse().expect("a number"));
        assert!(set.contains(start) && set.contains(last));
        said += last - start + 1;
    }
    assert_eq!(said, count);
}
