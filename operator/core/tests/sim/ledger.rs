//! Writes the status as the operator does: one at a time, read back when nobody knows what became of it (P13).

use hyperflow_api::{ShardJobStatus, ids::Takeover};
use hyperflow_core::coordinator::Revision;

use super::{
    api::{Api, Late, takeover_of},
    chance::Chance,
    store::Store,
};

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// It arrives, and the answer does not.
    Unanswered,
    /// It arrives long after anyone waits for it.
    Late,
    Lost,
}

enum Step {
    Sent { at: u64, fate: Fate },
    Looking { at: u64 },
}

pub struct Ledger {
    based_on: u64,
    takeover: Takeover,
    /// No write has been stored yet.
    taking_over: bool,
    writing: Option<(Revision, Box<ShardJobStatus>, Step)>,
}

/// What became of a write.
pub enum Outcome {
    Stored(Revision),
    Refused(Revision),
    Superseded,
}

impl Ledger {
    pub fn new(api: &Api, takeover: Takeover) -> Self {
        Self { based_on: api.version, takeover, taking_over: true, writing: None }
    }

    pub fn begin(&mut self, at: u64, revision: Revision, status: Box<ShardJobStatus>, fate: Fate) {
        assert!(self.writing.is_none(), "two status writes at a time");
        self.writing = Some((revision, status, Step::Sent { at, fate }));
    }

    /// What is on its way when the writer ends may arrive all the same.
    pub fn abandon(self, now: u64, api: &mut Api) {
        if let Some((_, status, Step::Sent { at, fate })) = self.writing
            && fate != Fate::Lost
        {
            api.late.push(Late { at: at.max(now), based_on: self.based_on, status });
        }
    }

    pub fn act(&mut self, now: u64, api: &mut Api, chance: &mut Chance, store: &mut Store) -> Option<Outcome> {
        let (revision, status, step) = self.writing.take()?;
        let (Step::Sent { at, .. } | Step::Looking { at }) = step;
        if now < at {
            self.writing = Some((revision, status, step));
            return None;
        }
        let Step::Sent { fate, .. } = step else { return self.look(now, revision, status, false, api, chance, store) };
        let fate = if api.is_away(now) && fate != Fate::Lost { Fate::Late } else { fate };
        let stored = matches!(fate, Fate::Answered | Fate::Unanswered) && api.write(self.based_on, &status, store);
        if fate == Fate::Answered {
            if stored {
                return Some(self.stored(revision, api));
            }
            store.visit("write met another version");
            return self.look(now, revision, status, true, api, chance, store);
        }
        if fate == Fate::Late {
            let at = api.away_until.max(now) + chance.below(4000);
            api.late.push(Late { at, based_on: self.based_on, status: status.clone() });
        }
        store.visit("write lost");
        self.writing = Some((revision, status, Step::Looking { at: now + 100 + chance.below(3000) }));
        None
    }

    /// What stands in the API server, compared with what was written.
    #[allow(clippy::too_many_arguments, reason = "the write and the whole world")]
    fn look(
        &mut self,
        now: u64,
        revision: Revision,
        status: Box<ShardJobStatus>,
        conflict: bool,
        api: &mut Api,
        chance: &mut Chance,
        store: &mut Store,
    ) -> Option<Outcome> {
        if api.is_away(now) {
            self.writing = Some((revision, status, Step::Looking { at: now + 500 }));
            return None;
        }
        let ours = takeover_of(&api.seen.status) == Some(self.takeover);
        if ours && api.seen.status == *status {
            return Some(self.stored(revision, api));
        }
        let untouched = self.taking_over && api.version == self.based_on;
        if !ours && !untouched {
            return Some(Outcome::Superseded);
        }
        self.based_on = api.version;
        if !conflict {
            store.visit("write refused");
            return Some(Outcome::Refused(revision));
        }
        self.writing = Some((revision, status, Step::Sent { at: now + chance.below(40), fate: Fate::Answered }));
        None
    }

    fn stored(&mut self, revision: Revision, api: &Api) -> Outcome {
        self.taking_over = false;
        self.based_on = api.version;
        Outcome::Stored(revision)
    }
}
