//! `status.recovery`: what one operator process leaves for the next, in few bytes.
//!
//! ```text
//! workers:  w0=0d1f3c2a@node-3,w1=51c2aa07@node-7       the first eight characters of the pod's UID, and the first
//!                                                       forty-eight of its node's name
//! attempts: 8127/w0/3.24795/f1/c3@67108864:9f2c07aa01b2c3d4     a leased shard: index, worker, epoch (term.sequence)
//! waiting:  17/u1763900000/f1/l2                        a shard that waits: index, not before (seconds since 1970)
//! clock:    35/u1763900000                              how long the job is active: see `clock.rs`
//! blocks:   d=9f2c07aa;0d1f3c2a@node-3/n/r0-99          who has which group of blocks: see `blocks/notes.rs`
//! ```
//!
//! Behind these, where they are not zero: `f` own failures so far, `l` workers lost so far, `k` those of them that it was
//! alone with, `s` if it is a suspect (P16), `c` number, position and digest of the newest checkpoint. A record takes 16 to [`RECORD_BYTES`] bytes; nothing is ever cut.

use std::{collections::BTreeMap, fmt::Write};

use hyperflow_api::{
    ids::{Epoch, MAX_SHARDS, ShardIndex},
    message::Checkpoint,
};

use crate::shards::{History, Seat};

/// Version of the form.
pub const FORMAT_VERSION: i32 = 1;

/// Most bytes of one record, its share of the worker table included: what a grant reserves in the status (P15).
pub const RECORD_BYTES: usize = 160;

/// Most bytes of a node's name: it is for people, and a long one must not make a status too large.
const NODE_BYTES: usize = 48;

/// A leased shard, as far as a successor needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which shard.
    pub index: ShardIndex,
    /// Number of the worker in the table.
    pub seat: Seat,
    /// Under which epoch; its take-over is the status' own.
    pub epoch: Epoch,
    /// What is remembered of it.
    pub history: History,
}

/// Notes that cannot be read. The operator does not guess: the job stands still and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form that this version of the operator reads")]
pub struct RecoveryError(String);

impl RecoveryError {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

fn error(text: &str) -> RecoveryError {
    RecoveryError::of(text)
}

/// Writes the leased shards and the workers that they speak of: `(workers, attempts)`.
#[must_use]
pub fn encode_attempts<'a>(
    attempts: impl Iterator<Item = Attempt>,
    describe: impl Fn(Seat) -> Option<(&'a str, &'a str)>,
) -> (String, String) {
    let mut table: BTreeMap<Seat, usize> = BTreeMap::new();
    let mut text = String::new();
    for Attempt { index, seat, epoch, history } in attempts {
        let count = table.len();
        let worker = *table.entry(seat).or_insert(count);
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{index}/w{worker}/{}.{}", epoch.takeover.term, epoch.sequence);
        write_history(&mut text, &history);
    }
    let mut workers: Vec<_> = table.into_iter().map(|(seat, number)| (number, seat)).collect();
    workers.sort_unstable();
    let workers = workers.into_iter().map(|(number, seat)| {
        let (pod, node) = describe(seat).unwrap_or_default();
        // Names of nodes are DNS names, which are ASCII.
        format!("w{number}={pod}@{}", node.get(..NODE_BYTES).unwrap_or(node))
    });
    (workers.collect::<Vec<_>>().join(","), text)
}

/// Writes the waiting shards: index, seconds since 1970, history.
#[must_use]
pub fn encode_waiting(waiting: impl Iterator<Item = (ShardIndex, i64, History)>) -> String {
    let mut text = String::new();
    for (index, unix, history) in waiting {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{index}/u{unix}");
        write_history(&mut text, &history);
    }
    text
}

fn write_history(text: &mut String, history: &History) {
    let History { failures, losses, kills, suspect, checkpoint } = history;
    if *failures > 0 {
        let _ = write!(text, "/f{failures}");
    }
    if *losses > 0 {
        let _ = write!(text, "/l{losses}");
    }
    if *kills > 0 {
        let _ = write!(text, "/k{kills}");
    }
    if *suspect {
        text.push_str("/s");
    }
    if let Some(Checkpoint { number, position, digest }) = checkpoint {
        let _ = write!(text, "/c{number}@{position}:{digest:016x}");
    }
}

/// Reads the leased shards: index and history. Who had them shows when workers say what they hold.
///
/// # Errors
/// When a record is not of the form.
pub fn decode_attempts(text: &str) -> Result<BTreeMap<ShardIndex, History>, RecoveryError> {
    let record = |record: &str| {
        let mut parts = record.split('/');
        let index = read_index(parts.next(), record)?;
        let (Some(worker), Some(epoch)) = (parts.next(), parts.next()) else { return Err(error(record)) };
        if !worker.starts_with('w') || !epoch.contains('.') {
            return Err(error(record));
        }
        Ok((index, read_history(parts, record)?))
    };
    read_all(text, record)
}

/// Reads the waiting shards: index, seconds since 1970, history.
///
/// # Errors
/// When a record is not of the form.
pub fn decode_waiting(text: &str) -> Result<BTreeMap<ShardIndex, (i64, History)>, RecoveryError> {
    let record = |record: &str| {
        let mut parts = record.split('/');
        let index = read_index(parts.next(), record)?;
        let unix = parts.next().and_then(|part| part.strip_prefix('u')?.parse().ok()).ok_or_else(|| error(record))?;
        Ok((index, (unix, read_history(parts, record)?)))
    };
    read_all(text, record)
}

/// All records of a text; two of one shard contradict each other.
fn read_all<T>(
    text: &str,
    read: impl Fn(&str) -> Result<(ShardIndex, T), RecoveryError>,
) -> Result<BTreeMap<ShardIndex, T>, RecoveryError> {
    let mut all = BTreeMap::new();
    for record in text.split(',').filter(|part| !part.is_empty()) {
        let (index, value) = read(record)?;
        if all.insert(index, value).is_some() {
            return Err(error(record));
        }
    }
    Ok(all)
}

fn read_index(part: Option<&str>, record: &str) -> Result<ShardIndex, RecoveryError> {
    part.and_then(|part| part.parse().ok()).filter(|index| *index < MAX_SHARDS).ok_or_else(|| error(record))
}

fn read_history<'a>(parts: impl Iterator<Item = &'a str>, record: &str) -> Result<History, RecoveryError> {
    let mut history = History::default();
    for part in parts {
        let wrong = || error(record);
        let (kind, value) = part.split_at_checked(1).ok_or_else(wrong)?;
        match kind {
            "f" => history.failures = value.parse().map_err(|_| wrong())?,
            "l" => history.losses = value.parse().map_err(|_| wrong())?,
            "k" => history.kills = value.parse().map_err(|_| wrong())?,
            "s" if value.is_empty() => history.suspect = true,
            "c" => history.checkpoint = Some(read_checkpoint(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok(history)
}

fn read_checkpoint(text: &str) -> Option<Checkpoint> {
    let (number, rest) = text.split_once('@')?;
    let (position, digest) = rest.split_once(':')?;
    Some(Checkpoint {
        number: number.parse().ok()?,
        position: position.parse().ok()?,
        digest: u64::from_str_radix(digest, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use hyperflow_api::ids::Takeover;
    use proptest::prelude::*;

    use super::*;

    fn history() -> impl Strategy<Value = History> {
        let checkpoint = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(number, position, digest)| Checkpoint {
            number,
            position,
            digest,
        });
        let counts = (0_u32..100, 0_u32..20, 0_u32..4, any::<bool>());
        (counts, prop::option::of(checkpoint)).prop_map(|((failures, losses, kills, suspect), checkpoint)| History {
            failures,
            losses,
            kills,
            suspect,
            checkpoint,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(all in prop::collection::btree_map(0..MAX_SHARDS, history(), 0..20)) {
            let attempts = all.iter().map(|(&index, &history)| Attempt {
                index,
                seat: Seat(index % 3),
                epoch: Epoch { takeover: Takeover { term: 3, random: 9 }, sequence: 24_795 },
                history,
            });
            let (workers, text) = encode_attempts(attempts, |_| Some(("0d1f3c2a", "node-3")));
            prop_assert!(text.len() + workers.len() <= all.len() * RECORD_BYTES);
            prop_assert_eq!(decode_attempts(&text).unwrap(), all.clone());
            let waiting = all.iter().map(|(&index, &history)| (index, 1_763_900_000, history));
            let read = decode_waiting(&encode_waiting(waiting)).unwrap();
            prop_assert!(read.iter().map(|(index, (_, history))| (*index, *history)).eq(all));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-z/@:.,]{0,40}") {
            let _ = (decode_attempts(&text), decode_waiting(&text));
        }
    }

    #[test]
    fn the_form_is_as_documented() {
        let checkpoint = Some(Checkpoint { number: 3, position: 67_108_864, digest: 0x9f2c_07aa_01b2_c3d4 });
        let history = History { failures: 1, checkpoint, ..History::default() };
        let epoch = Epoch { takeover: Takeover { term: 3, random: 1 }, sequence: 24_795 };
        let attempt = Attempt { index: 8127, seat: Seat(40), epoch, history };
        let (workers, attempts) = encode_attempts([attempt].into_iter(), |_| Some(("0d1f3c2a", "node-3")));
        assert_eq!(workers, "w0=0d1f3c2a@node-3");
        assert_eq!(attempts, "8127/w0/3.24795/f1/c3@67108864:9f2c07aa01b2c3d4");
        for wrong in ["x", "1", "1/w0", "1/w0/3.4/q1", "1/w0/3.4/c1", "1000000/w0/1.1", "1/w0/1.1,1/w0/1.2"] {
            assert!(decode_attempts(wrong).is_err(), "{wrong}");
        }
    }
}
