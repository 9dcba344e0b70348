//! Making a shard's result visible, exactly once: which step comes next, and what the store's answer means (P5, P6, P9).
//!
//! ```text
//!        nothing              staged          durable          ours
//!  Look ─────────▶ Produce ────────────▶ Sync ────────▶ Commit ─────▶ SyncCommit ──┐
//!    │                │ gone           │ gone              │ found                 ▼
//!    │ found          ▼◀───────────────┴─── found          ▼                     Name ─▶ Record ─▶ Report
//!    │            LookAgain ─────────────────────────▶ SyncFound ─▶ Sum ───────────┘
//!    └────────────────────────────────────────────────────▲
//! ```
//!
//! The shell does what a step says and hands the answer in; an error of the store ends the attempt, and the next one
//! begins again at the top. Whoever dies between two steps leaves a state from which every other attempt comes to the
//! same result.

use hyperflow_api::message::Published;

/// A result: its size and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look whether the shard has a commit. One look is cheaper than to know when it is needed: after a probe (P18), a
    /// retry, a zombie's late commit.
    Look,
    /// Run the task: its output is staged under a private name (P3).
    Produce,
    /// The staging is gone: the sweeper removes it when the shard is committed, so the commit must be there.
    LookAgain,
    /// Make the staged output durable.
    Sync(Content),
    /// Link it to the commit's name, create-only. This is the commit.
    Commit(Content),
    /// Make the commit's name durable.
    SyncCommit(Content),
    /// Make somebody else's commit durable, content and name: its author may have died before (P6).
    SyncFound,
    /// Read somebody else's commit for its checksum.
    Sum,
    /// Link the commit to the name that the user asked for, create-only, and make that durable.
    Name(Published),
    /// Append to this worker's records, durably (P9).
    Record(Published),
    /// Everything that is said by this is durable: say it.
    Report(Published),
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// There is no commit.
    Nothing,
    /// There is a commit, and it is not ours.
    Found,
    /// The output is staged.
    Staged(Content),
    /// What was staged is not there any more.
    Gone,
    /// The content of the commit.
    Summed(Content),
}

/// An attempt that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Staging is removed only when the shard is committed, and it is not.
    #[error("the staged output is gone, and the shard is not committed")]
    StagingGone,
    /// A step was given an answer that is none to it.
    #[error("{1:?} is no answer to {0:?}")]
    OutOfOrder(Step, Answer),
}

impl Step {
    /// The step after this one.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(self, answer: Answer) -> Result<Self, PublishError> {
        Ok(match (self, answer) {
            (Self::Look, Answer::Nothing) => Self::Produce,
            (Self::Look | Self::LookAgain | Self::Commit(_), Answer::Found) => Self::SyncFound,
            (Self::Produce, Answer::Staged(content)) => Self::Sync(content),
            (Self::Produce | Self::Sync(_) | Self::Commit(_), Answer::Gone) => Self::LookAgain,
            (Self::LookAgain, Answer::Nothing) => return Err(PublishError::StagingGone),
            (Self::Sync(content), Answer::Done) => Self::Commit(content),
            (Self::Commit(content), Answer::Done) => Self::SyncCommit(content),
            (Self::SyncCommit(content), Answer::Done) => Self::Name(published(content, false)),
            (Self::SyncFound, Answer::Done) => Self::Sum,
            (Self::Sum, Answer::Summed(content)) => Self::Name(published(content, true)),
            (Self::Name(published), Answer::Done) => Self::Record(published),
            (Self::Record(published), Answer::Done) => Self::Report(published),
            (step, answer) => return Err(PublishError::OutOfOrder(step, answer)),
        })
    }
}

fn published(Content { bytes, crc32c }: Content, found: bool) -> Published {
    Published { bytes, crc32c, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content = Content { bytes: 5, crc32c: 7 };

    fn walk(answers: &[Answer]) -> Result<Step, PublishError> {
        answers.iter().try_fold(Step::Look, |step, answer| step.next(*answer))
    }

    #[test]
    fn the_first_reports_its_own_and_whoever_comes_second_the_first_ones() {
        let own = [Answer::Nothing, Answer::Staged(CONTENT), Answer::Done, Answer::Done, Answer::Done];
        let said = [Answer::Done, Answer::Done];
        let ours = published(CONTENT, false);
        assert_eq!(walk(&[&own[..], &said].concat()), Ok(Step::Report(ours)));
        let late = [Answer::Nothing, Answer::Staged(CONTENT), Answer::Done, Answer::Found, Answer::Done];
        let other = Content { bytes: 5, crc32c: 9 };
        let found = published(other, true);
        assert_eq!(walk(&[&late[..], &[Answer::Summed(other)], &said].concat()), Ok(Step::Report(found)));
        let early = [Answer::Found, Answer::Done, Answer::Summed(other)];
        assert_eq!(walk(&[&early[..], &said].concat()), Ok(Step::Report(found)));
    }

    #[test]
    fn staging_that_is_gone_means_a_commit_or_an_error() {
        assert_eq!(walk(&[Answer::Nothing, Answer::Gone, Answer::Found]), Ok(Step::SyncFound));
        assert_eq!(walk(&[Answer::Nothing, Answer::Gone, Answer::Nothing]), Err(PublishError::StagingGone));
        assert!(matches!(walk(&[Answer::Done]), Err(PublishError::OutOfOrder(..))));
    }
}
