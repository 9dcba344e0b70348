//! The notes of shards that are leased or wait: what is read is written and read again as the same.

use hyperflow_api::ids::{Epoch, MAX_SHARDS};
use hyperflow_core::{
    recovery::{Attempt, RECORD_BYTES, decode_attempts, decode_waiting, encode_attempts, encode_waiting},
    shards::Seat,
};

/// The first line is of leased shards, the rest of waiting ones.
pub fn notes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, text));
    attempts(first);
    waiting(rest);
}

fn attempts(text: &str) {
    let read = match decode_attempts(text) {
        Ok(read) => read,
        Err(error) => return assert!(error.to_string().chars().count() < 160, "{error}"),
    };
    assert!(read.keys().all(|index| *index < MAX_SHARDS));
    let attempt = |(&index, &history)| Attempt { index, seat: Seat(index % 7), epoch: Epoch::default(), history };
    let (workers, again) = encode_attempts(read.iter().map(attempt), |_| Some(("0d1f3c2a", "node-3")));
    assert!(workers.len() + again.len() <= read.len() * RECORD_BYTES);
    assert_eq!(decode_attempts(&again).as_ref(), Ok(&read), "{again}");
}

fn waiting(text: &str) {
    let Ok(read) = decode_waiting(text) else { return };
    assert!(read.keys().all(|index| *index < MAX_SHARDS));
    let again = encode_waiting(read.iter().map(|(&index, &(unix, history))| (index, unix, history)));
    assert!(again.len() <= read.len() * RECORD_BYTES);
    assert_eq!(decode_waiting(&again).as_ref(), Ok(&read), "{again}");
}
