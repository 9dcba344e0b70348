//! What became of a status write, when the API server did not say so or says that somebody else wrote (P13).

use hyperflow_api::{ShardJobStatus, ids::Takeover};

/// What the object read back holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The very status that was written: the write arrived.
    Ours,
    /// An earlier status of this take-over, or the one that it was to begin on: the write did not arrive.
    Older,
    /// Another operator's: the job is not ours any more.
    Another,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The write is stored.
    Stored,
    /// Write the same on top of what was read.
    WriteAgain,
    /// It is not stored. The coordinator, which paces writes, says when there is another.
    Refused,
    /// The job is another's: stop.
    Superseded,
}

/// A status that was written, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// It.
    pub status: &'a ShardJobStatus,
    /// Who wrote.
    pub takeover: Takeover,
    /// No write of this take-over was ever stored: this one raises the term.
    pub raises_term: bool,
}

/// Compares what was read back with what was written; `untouched` says that the object is of the very version that the
/// write was based on. A term is raised only on the object that this was decided from.
#[must_use]
pub fn compare(live: Option<&ShardJobStatus>, written: Written<'_>, untouched: bool) -> Found {
    let ours = live.and_then(takeover_of) == Some(written.takeover);
    if ours && same(live, written.status) {
        Found::Ours
    } else if ours || (written.raises_term && untouched) {
        Found::Older
    } else {
        Found::Another
    }
}

/// What follows; `conflict` says that the API server refused the write because of its version.
#[must_use]
pub fn next(found: Found, conflict: bool) -> Next {
    match found {
        Found::Ours => Next::Stored,
        Found::Another => Next::Superseded,
        Found::Older if conflict => Next::WriteAgain,
        Found::Older => Next::Refused,
    }
}

/// Equal as the API server keeps them, which is without fractions of a second.
fn same(live: Option<&ShardJobStatus>, written: &ShardJobStatus) -> bool {
    if live == Some(written) {
        return true;
    }
    match (serde_json::to_value(live), serde_json::to_value(written)) {
        (Ok(live), Ok(written)) => live == written,
        // What cannot be compared is not known to be stored.
        _ => false,
    }
}

/// The take-over that wrote a status.
#[must_use]
pub fn takeover_of(status: &ShardJobStatus) -> Option<Takeover> {
    let recovery = status.recovery.as_ref()?;
    let term = u64::try_from(recovery.term).ok()?;
    let random = u64::from_str_radix(&recovery.takeover, 16).ok()?;
    Some(Takeover { term, random })
}

#[cfg(test)]
mod tests {
    use hyperflow_api::status::{Display, Recovery};

    use super::*;

    const US: Takeover = Takeover { term: 3, random: 0xab };

    fn status(term: i64, takeover: &str, progress: &str) -> ShardJobStatus {
        ShardJobStatus {
            display: Some(Display { status: "Running".into(), progress: progress.into(), ..Display::default() }),
            recovery: Some(Recovery { term, takeover: takeover.into(), ..Recovery::default() }),
            ..ShardJobStatus::default()
        }
    }

    fn compared(live: &ShardJobStatus, raises_term: bool, untouched: bool) -> Found {
        let status = status(3, "00000000000000ab", "2/3");
        compare(Some(live), Written { status: &status, takeover: US, raises_term }, untouched)
    }

    #[test]
    fn a_write_without_an_answer_is_found_by_reading_back() {
        assert_eq!(compared(&status(3, "00000000000000ab", "2/3"), true, false), Found::Ours);
        assert_eq!(compared(&status(3, "00000000000000ab", "2/3"), false, false), Found::Ours);
        assert_eq!(compared(&status(3, "00000000000000ab", "1/3"), false, false), Found::Older);
    }

    #[test]
    fn another_take_over_ends_ours_even_under_our_own_term() {
        assert_eq!(compared(&status(4, "00000000000000ab", "2/3"), false, false), Found::Another);
        assert_eq!(compared(&status(3, "00000000000000cd", "2/3"), false, false), Found::Another);
    }

    #[test]
    fn a_term_is_raised_only_on_the_object_it_was_decided_from() {
        assert_eq!(compared(&status(2, "00000000000000cd", "1/3"), true, true), Found::Older);
        assert_eq!(compared(&status(2, "00000000000000cd", "1/3"), true, false), Found::Another);
        let first = ShardJobStatus::default();
        assert_eq!(compared(&first, true, true), Found::Older);
    }

    #[test]
    fn only_a_conflict_is_answered_by_the_same_write_again() {
        assert_eq!(next(Found::Older, true), Next::WriteAgain);
        assert_eq!(next(Found::Older, false), Next::Refused);
        assert_eq!((next(Found::Ours, true), next(Found::Another, true)), (Next::Stored, Next::Superseded));
    }
}
