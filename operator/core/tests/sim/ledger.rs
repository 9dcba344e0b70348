//! Writes the status as the operator does: one at a time, read back when nobody knows what became of it (P13).

use hyperflow_api::{ShardJobStatus, ids::Takeover};
use hyperflow_core::{
    coordinator::{Event, Revision},
    ledger::{Next, Written, compare, next},
};
use serde::{Deserialize, Serialize};

use super::world::{Turn, World};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    Answered,
    /// It arrives, and the answer does not.
    Unanswered,
    /// It arrives long after anyone waits for it.
    Late,
    Lost,
}

#[derive(Clone, Copy)]
enum Step {
    Sent(Fate),
    Looking { conflict: bool },
}

struct Write {
    revision: Revision,
    status: Box<ShardJobStatus>,
    step: Step,
}

pub struct Ledger {
    based_on: u64,
    takeover: Takeover,
    /// No write has been stored yet.
    raises_term: bool,
    write: Option<Write>,
}

impl Ledger {
    pub fn new(based_on: u64, takeover: Takeover) -> Self {
        Self { based_on, takeover, raises_term: true, write: None }
    }

    pub fn begin(&mut self, revision: Revision, status: Box<ShardJobStatus>, fate: Fate) {
        assert!(self.write.is_none(), "two status writes at a time");
        self.write = Some(Write { revision, status, step: Step::Sent(fate) });
    }
}

impl World {
    /// What is on its way when the writer ends may arrive all the same.
    pub fn abandon_write(&mut self, ledger: Ledger) {
        if let Some(Write { status, step: Step::Sent(fate), .. }) = ledger.write
            && fate != Fate::Lost
        {
            let wait = self.chance.below(500);
            self.writes_late(wait, ledger.based_on, status);
        }
    }

    fn writes_late(&mut self, wait: u64, based_on: u64, status: Box<ShardJobStatus>) {
        self.late.push((based_on, status));
        let number = self.late.len() - 1;
        let at = self.api.away_until.max(self.now) + wait;
        self.at(at, Turn::LateWrite(number));
    }

    /// A write that nobody waits for arrives after all.
    pub fn late_write_arrives(&mut self, number: usize) {
        let (based_on, status) = self.late[number].clone();
        if self.now < self.api.away_until {
            return self.at(self.api.away_until, Turn::LateWrite(number));
        }
        if self.api.write(based_on, &status, &mut self.store) {
            self.visit("late write stored");
            self.changed();
        }
    }

    pub fn ledger_acts(&mut self, place: usize, number: u64) {
        let away = self.api_is_away(place);
        let desk = self.operators[place].desk.as_mut().filter(|desk| desk.number == number);
        let Some(ledger) = desk.and_then(|desk| desk.ledger.as_mut()) else { return };
        let Some(write) = ledger.write.take() else { return };
        match write.step {
            Step::Sent(fate) => {
                self.send(place, number, write, if away && fate != Fate::Lost { Fate::Late } else { fate });
            }
            Step::Looking { .. } if away => self.again(place, number, write, 500),
            Step::Looking { conflict } => self.look(place, number, write, conflict),
        }
    }

    fn again(&mut self, place: usize, number: u64, write: Write, wait: u64) {
        if let Some(ledger) = self.operators[place].desk.as_mut().and_then(|desk| desk.ledger.as_mut()) {
            ledger.write = Some(write);
            self.after(wait, Turn::LedgerActs { place, desk: number });
        }
    }

    fn send(&mut self, place: usize, number: u64, write: Write, fate: Fate) {
        let Some(ledger) = self.operators[place].desk.as_mut().and_then(|desk| desk.ledger.as_mut()) else { return };
        let based_on = ledger.based_on;
        let arrives = matches!(fate, Fate::Answered | Fate::Unanswered);
        self.nothing_could_come_back(&write.status);
        let stored = arrives && self.api.write(based_on, &write.status, &mut self.store);
        match fate {
            Fate::Answered if stored => return self.stored(place, write),
            Fate::Answered => {
                self.visit("write met another version");
                return self.look(place, number, write, true);
            }
            Fate::Late => {
                let wait = self.chance.below(4000);
                self.writes_late(wait, based_on, write.status.clone());
            }
            Fate::Unanswered | Fate::Lost => {}
        }
        self.visit("write lost");
        let wait = 100 + self.chance.below(3000);
        self.again(place, number, Write { step: Step::Looking { conflict: false }, ..write }, wait);
    }

    /// What stands in the API server, compared with what was written.
    fn look(&mut self, place: usize, number: u64, write: Write, conflict: bool) {
        let Some(ledger) = self.operators[place].desk.as_mut().and_then(|desk| desk.ledger.as_mut()) else { return };
        let written = Written { status: &write.status, takeover: ledger.takeover, raises_term: ledger.raises_term };
        let found = compare(Some(&self.api.seen.status), written, self.api.version == ledger.based_on);
        match next(found, conflict) {
            Next::Stored => {
                self.visit("write found stored");
                self.stored(place, write);
            }
            Next::Superseded => {
                self.visit("superseded");
                self.end_desk(place, Some(0));
            }
            Next::WriteAgain => {
                ledger.based_on = self.api.version;
                let wait = self.chance.below(40);
                self.again(place, number, Write { step: Step::Sent(Fate::Answered), ..write }, wait);
            }
            Next::Refused => {
                ledger.based_on = self.api.version;
                self.visit("write refused");
                self.desk_hears(place, vec![Event::StatusRefused(write.revision)]);
            }
        }
    }

    fn stored(&mut self, place: usize, write: Write) {
        if let Some(ledger) = self.operators[place].desk.as_mut().and_then(|desk| desk.ledger.as_mut()) {
            ledger.raises_term = false;
            ledger.based_on = self.api.version;
        }
        self.status_is_stored(place, write.revision, write.status);
    }
}
