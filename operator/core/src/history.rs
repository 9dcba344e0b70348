//! What is remembered of a shard over its attempts, and how the loss of a worker counts (P16).

use hyperflow_api::message::Checkpoint;

/// What is remembered of a shard over its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Attempts that ended in its own failure.
    pub failures: u32,
    /// Attempts that ended with their worker.
    pub losses: u32,
    /// Of these, those in which nothing else can have been why (P16).
    pub kills: u32,
    /// It may have been why a worker was lost: it runs beside no other suspect.
    pub suspect: bool,
    /// Where to go on from.
    pub checkpoint: Option<Checkpoint>,
}

impl History {
    /// Number of the next attempt, or of the one under way.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        1 + self.failures + self.losses
    }

    /// After a worker was lost that had begun it; `counts` says that this uses up an attempt.
    pub(crate) fn after_loss(self, blame: Blame, counts: bool) -> Self {
        match blame {
            Blame::None => self,
            _ if counts => Self { failures: self.failures + 1, suspect: self.suspect || blame != Blame::Moved, ..self },
            Blame::Moved => Self { losses: self.losses + 1, ..self },
            Blame::Suspect => Self { losses: self.losses + 1, suspect: true, ..self },
            Blame::Alone => Self { losses: self.losses + 1, kills: self.kills + 1, suspect: true, ..self },
        }
    }

    /// A loss was not its doing.
    pub(crate) fn acquit(&mut self, charged: bool) {
        self.suspect = false;
        self.kills = self.kills.saturating_sub(u32::from(charged));
    }

    /// A loss counts as a failure like any other; it was charged as a kill if it is `charged`.
    pub(crate) fn count_loss(&mut self, charged: bool) {
        self.kills = self.kills.saturating_sub(u32::from(charged));
        self.losses = self.losses.saturating_sub(1);
        self.failures += 1;
    }

    /// A loss that was counted is one like any other.
    pub(crate) fn uncount_loss(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        self.losses += 1;
    }
}

/// How the loss of a worker counts for a shard that it had (P16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Not begun, or handed over by somebody's wish: nothing happened to it.
    None,
    /// Moved by what happened to its machine.
    Moved,
    /// It may be why: from now on it runs beside no other suspect.
    Suspect,
    /// It is why, as far as can be known: it was the only one, or the only suspect, that ran.
    Alone,
}
