//! Who is who. Everything is told apart by UID, nonce and epoch, never by name (protocol P1, P2).

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// Number of a shard in the plan, from 0. There are at most [`MAX_SHARDS`].
pub type ShardIndex = u32;

/// Most shards of one job; beyond it status could no longer be kept small.
pub const MAX_SHARDS: u32 = 1_000_000;

/// `metadata.uid` of a ShardJob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobUid(pub String);

impl fmt::Display for JobUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One worker process: a pod's UID and a number drawn when the process started (P2).
///
/// A container that is restarted keeps its pod UID, but is another worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// Random number drawn at process start.
    pub nonce: u64,
}

impl WorkerId {
    /// The first eight characters of the pod's UID: enough for people and file names next to the nonce.
    #[must_use]
    pub fn short_pod(&self) -> &str {
        self.pod_uid.get(..8).unwrap_or(&self.pod_uid)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.short_pod(), self.nonce)
    }
}

/// An operator process that has taken a job over (P1).
///
/// `term` rises by one each time; `random` is drawn then. After an etcd restore terms repeat, so only equality of both
/// means "the same take-over".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Takeover {
    /// Rises by one, by compare-and-swap in status.
    pub term: u64,
    /// 64 random bits.
    pub random: u64,
}

/// The right to speak for one lease (P1). Compared for equality only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Which operator process granted it.
    pub takeover: Takeover,
    /// Rises by one with each grant of that process.
    pub sequence: u64,
}

impl fmt::Display for Epoch {
    /// `3.9f3ac0de51b20c77.24795`: safe in file names, parsed back by [`FromStr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}.{}", self.takeover.term, self.takeover.random, self.sequence)
    }
}

/// A text that is no epoch.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// Not three parts.
    #[error("epoch '{0}' is not of the form term.takeover.sequence")]
    Shape(String),
    /// A part is no number.
    #[error("epoch '{text}' has a part that is no number")]
    Number {
        /// What was to be read.
        text: String,
        /// Why it could not be.
        #[source]
        source: ParseIntError,
    },
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let parts: Vec<&str> = text.split('.').collect();
        let [term, random, sequence] = parts[..] else { return Err(EpochError::Shape(text.into())) };
        let number = |source| EpochError::Number { text: text.into(), source };
        Ok(Self {
            takeover: Takeover {
                term: term.parse().map_err(number)?,
                random: u64::from_str_radix(random, 16).map_err(number)?,
            },
            sequence: sequence.parse().map_err(number)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_back_from_its_text() {
        let epoch = Epoch { takeover: Takeover { term: 3, random: 0xde51_b20c }, sequence: 24_795 };
        assert_eq!(epoch.to_string(), "3.00000000de51b20c.24795");
        assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
    }

    #[test]
    fn nonsense_is_no_epoch() {
        for text in ["", "1.2", "1.2.3.4", "x.1.1", "1.x.1", "1.1.-1"] {
            assert!(text.parse::<Epoch>().is_err(), "{text}");
        }
    }
}
