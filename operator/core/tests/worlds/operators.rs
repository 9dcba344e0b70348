//! The operator's processes and their status writes: one at a time, by compare-and-swap, read back when nobody knows what
//! became of them (P13).

use hyperflow_api::message::{FromOperator, Target};
use hyperflow_core::{
    invariants::{self, Broken},
    ledger::{self, Next, Written},
    retry::MAX_KILLS,
};

use super::{
    desks::{Desk, Says, Status, Told, Turn},
    kept::Kept,
    promises::{GIVEN_UP, Path, note},
    streams::End,
    world::{State, World},
};

/// A write that its desk waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// On its way.
    Sent(Kept<Status>),
    /// To be read back; whether the API server had refused it because of its version.
    Unknown { status: Kept<Status>, conflict: bool },
}

/// An operator process. Whether it leads nobody can know, so it may at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operator {
    pub desk: Option<Kept<Desk>>,
    /// The term to outdo with the next take-over.
    pub heard: u64,
    /// Its next write is based on the version that the API server has. Once it is not, it never is again by itself: so
    /// versions need no numbers.
    pub current: bool,
    /// No write of this take-over is stored, as far as it knows.
    pub taking_over: bool,
    pub write: Option<Write>,
}

impl Operator {
    pub fn leads(&self) -> bool {
        self.desk.is_some() && !self.taking_over
    }
}

impl World {
    pub fn take_over(&self, state: &mut State, operator: usize) {
        state.used.troubles += u8::from(state.used.take_overs > 0);
        state.used.take_overs += 1;
        let it = &mut state.operators[operator];
        let (random, heard) = (u64::from(state.used.take_overs), std::mem::take(&mut it.heard));
        (it.current, it.taking_over) = (true, true);
        let status = state.status.clone();
        self.desk_hears(state, operator, Told::TakeOver { status, random, heard });
    }

    /// A desk is told something, and what it says is carried out.
    pub fn desk_hears(&self, state: &mut State, operator: usize, told: Told) {
        let turn = self.desks.turn(self.now(state), state.operators[operator].desk.as_ref(), told);
        let Turn { desk, says, outranked, broken } = &*turn;
        note(&mut state.broken, broken.clone().map_or(Ok(()), Err));
        state.operators[operator].desk.clone_from(desk);
        for say in says {
            match say {
                Says::Send { session, message } => {
                    self.check_grants(state, operator, message);
                    state.send_to_worker(*session, message);
                }
                Says::Close { session } => state.close(*session, End::Operator),
                Says::Store(status) => state.operators[operator].write = Some(Write::Sent(status.clone())),
            }
        }
        if let Some(term) = outranked {
            self.paths.visit(Path::Outranked);
            self.end_desk(state, operator);
            state.operators[operator].heard = *term;
        }
    }

    fn check_grants(&self, state: &mut State, operator: usize, message: &FromOperator) {
        let FromOperator::Orders(orders) = message else { return };
        let it = &state.operators[operator];
        let stored = it.desk.as_ref().filter(|_| !it.taking_over).map(|desk| desk.core.takeover());
        for grant in &orders.grants {
            if let Target::Shard(index) = grant.target {
                let right = invariants::granted_by_right(grant.epoch, index, stored, state.status.reserved);
                note(&mut state.broken, right);
            }
        }
    }

    /// The process dies, or another's take-over ends its desk. What it had sent may arrive all the same.
    pub fn end_desk(&self, state: &mut State, operator: usize) {
        let ended = std::mem::take(&mut state.operators[operator]);
        if let Some(Write::Sent(status)) = ended.write.filter(|_| ended.current) {
            state.astray(status);
        }
        state.close_all(|stream| stream.operator == operator, End::Operator);
    }

    /// The API server gets a write and answers.
    pub fn write_arrives(&self, state: &mut State, operator: usize) {
        let Some(Write::Sent(status)) = state.operators[operator].write.take() else { return };
        if state.operators[operator].current {
            self.land(state, &status);
            return self.stored(state, operator);
        }
        self.paths.visit(Path::Conflict);
        state.operators[operator].write = Some(Write::Unknown { status, conflict: true });
    }

    /// No answer comes. The write may have arrived, may yet, or never.
    pub fn write_goes_astray(&self, state: &mut State, operator: usize) {
        let Some(Write::Sent(status)) = state.operators[operator].write.take() else { return };
        state.used.troubles += 1;
        if state.operators[operator].current {
            state.astray(status.clone());
        }
        state.operators[operator].write = Some(Write::Unknown { status, conflict: false });
    }

    /// A write that nobody has an answer to arrives.
    pub fn stray_arrives(&self, state: &mut State, place: usize) {
        let status = state.strays[place].clone();
        let waits = |write: &Option<Write>| matches!(write, Some(Write::Unknown { status: it, .. }) if *it == status);
        if !state.operators.iter().any(|operator| waits(&operator.write)) {
            self.paths.visit(Path::LateLanded);
        }
        self.land(state, &status);
    }

    /// A status is stored: nobody else's write is based on what there is now.
    fn land(&self, state: &mut State, status: &Kept<Status>) {
        let before = &state.status;
        note(&mut state.broken, invariants::status_is_monotone(&before.whole, &status.whole));
        let never_leads = invariants::status_never_leads(&status.done, |index| self.is_committed(state, index));
        note(&mut state.broken, never_leads);
        let deaths = u32::from(state.used.troubles) + u32::from(state.used.pauses);
        if !status.failed.is_empty() && deaths < MAX_KILLS {
            let how = format!("given up after {deaths} chances to lose a worker at most: {}", status.failed);
            note(&mut state.broken, Err(Broken { promise: GIVEN_UP, how }));
        }
        if status.ended {
            self.paths.visit(Path::Complete);
            note(&mut state.broken, invariants::the_end_is_explained(&status.whole));
        }
        state.status = status.clone();
        state.strays.clear();
        for operator in &mut state.operators {
            operator.current = false;
        }
    }

    fn stored(&self, state: &mut State, operator: usize) {
        let it = &mut state.operators[operator];
        (it.current, it.taking_over) = (true, false);
        self.desk_hears(state, operator, Told::Stored);
    }

    /// The object is read, and compared with what was written.
    pub fn look(&self, state: &mut State, operator: usize) {
        let it = &mut state.operators[operator];
        let (Some(desk), Some(Write::Unknown { status, conflict })) = (&it.desk, it.write.take()) else { return };
        let takeover = desk.core.takeover();
        let written = Written { status: &status.whole, takeover, raises_term: it.taking_over };
        let found = ledger::compare(Some(&state.status.whole), written, it.current);
        match ledger::next(found, conflict) {
            Next::Stored => {
                self.paths.visit(Path::HadLanded);
                self.stored(state, operator);
            }
            Next::Superseded => {
                self.paths.visit(Path::Superseded);
                self.end_desk(state, operator);
            }
            Next::Refused => {
                self.paths.visit(Path::HadNotLanded);
                it.current = true;
                self.desk_hears(state, operator, Told::Refused);
            }
            Next::WriteAgain => {
                it.current = true;
                it.write = Some(Write::Sent(status));
            }
        }
    }
}
