//! What may happen next in a world.

use super::{
    desks::Told,
    operators::{Operator, Write},
    processes::Stage,
    streams::{End, Stream},
    world::{OPERATORS, State, WORKERS, World},
};

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    TakeOver(usize),
    FlushDesk(usize),
    WriteArrives(usize),
    WriteGoesAstray(usize),
    StrayArrives(usize),
    Look(usize),
    OperatorFalls(usize),
    Connect {
        worker: usize,
        operator: usize,
    },
    Deliver {
        session: u64,
        to: End,
    },
    /// The stream is gone, and this end is the first to know.
    Break {
        session: u64,
        first: End,
    },
    /// An end learns that the other has closed; what was still on its way is lost.
    Notice {
        session: u64,
        end: End,
    },
    Beat(usize),
    Checkpoint {
        worker: usize,
        attempt: usize,
    },
    Publish {
        worker: usize,
        attempt: usize,
    },
    Report {
        worker: usize,
        attempt: usize,
    },
    Stop {
        worker: usize,
        attempt: usize,
    },
    /// The process dies, and another takes its place in the pod.
    WorkerCrashes(usize),
    Pause,
    /// As long as a lease.
    LongPause,
}

impl World {
    pub fn choices(&self, state: &State, actions: &mut Vec<Action>) {
        self.operator_actions(state, actions);
        self.stream_actions(state, actions);
        (0..WORKERS).for_each(|worker| self.worker_actions(state, worker, actions));
        let (pauses, silences) = (state.used.pauses < self.scope.pauses, self.may_go_wrong(state));
        if (pauses || silences) && (self.scope.disorder || self.is_quiet(state)) {
            actions.extend(pauses.then_some(Action::Pause));
            actions.extend(silences.then_some(Action::LongPause));
        }
    }

    fn may_go_wrong(&self, state: &State) -> bool {
        state.used.troubles < self.scope.troubles
    }

    /// Nothing is on its way, and nobody has anything to say.
    fn is_quiet(&self, state: &State) -> bool {
        let rests = |operator: &Operator| {
            let Some(desk) = &operator.desk else { return true };
            let turn = self.desks.turn(self.now(state), Some(desk), Told::Flush);
            operator.write.is_none() && turn.says.is_empty() && turn.desk.as_ref() == Some(desk)
        };
        let calm =
            |stream: &Stream| stream.to_operator.is_empty() && stream.to_worker.is_empty() && stream.closed.is_none();
        let silent = |worker: usize| !self.is_beat_due(state, worker);
        state.operators.iter().all(rests) && state.streams.iter().all(calm) && (0..WORKERS).all(silent)
    }

    fn is_beat_due(&self, state: &State, worker: usize) -> bool {
        let core = &state.workers[worker].core;
        core.is_in_session() && core.next_wake() <= self.now(state).millis
    }

    fn operator_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (first, calm) = (state.used.take_overs == 0, !self.may_go_wrong(state));
        for (number, operator) in state.operators.iter().enumerate() {
            if operator.desk.is_none() {
                // Operators are alike: that the first takes over first says nothing.
                if (!first && !calm || first && number == 0) && !state.status.ended {
                    actions.push(Action::TakeOver(number));
                }
                continue;
            }
            actions.push(Action::FlushDesk(number));
            match operator.write {
                Some(Write::Sent(_)) => {
                    actions.push(Action::WriteArrives(number));
                    if !calm {
                        actions.push(Action::WriteGoesAstray(number));
                    }
                }
                Some(Write::Unknown { .. }) => actions.push(Action::Look(number)),
                None => {}
            }
            if !calm {
                actions.push(Action::OperatorFalls(number));
            }
        }
        actions.extend((0..state.strays.len()).map(Action::StrayArrives));
    }

    fn stream_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for Stream { session, to_operator, to_worker, closed, .. } in &state.streams {
            let session = *session;
            if !to_operator.is_empty() {
                actions.push(Action::Deliver { session, to: End::Operator });
            }
            if !to_worker.is_empty() {
                actions.push(Action::Deliver { session, to: End::Worker });
            }
            match closed {
                Some(End::Worker) => actions.push(Action::Notice { session, end: End::Operator }),
                Some(End::Operator) => actions.push(Action::Notice { session, end: End::Worker }),
                None if self.may_go_wrong(state) => {
                    actions.push(Action::Break { session, first: End::Worker });
                    actions.push(Action::Break { session, first: End::Operator });
                }
                None => {}
            }
        }
    }

    fn worker_actions(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let process = &state.workers[worker];
        match state.stream_of(worker) {
            // Workers are alike as well.
            None if worker == 0 || state.used.connects[0] > 0 => {
                let open = (0..OPERATORS).filter(|operator| state.operators[*operator].desk.is_some());
                actions.extend(open.map(|operator| Action::Connect { worker, operator }));
            }
            Some(stream) if stream.closed.is_none() && self.is_beat_due(state, worker) => {
                actions.push(Action::Beat(worker));
            }
            _ => {}
        }
        // There is one slot: the others wait in line.
        for (attempt, it) in process.attempts.values().enumerate().take(1) {
            if matches!(it.stage, Stage::Committed { .. }) {
                actions.push(Action::Report { worker, attempt });
                continue;
            }
            actions.push(Action::Publish { worker, attempt });
            if it.stopped {
                actions.push(Action::Stop { worker, attempt });
            } else if !it.checkpointed && state.used.checkpoints < self.scope.checkpoints {
                actions.push(Action::Checkpoint { worker, attempt });
            }
        }
        if self.may_go_wrong(state) && state.used.connects[worker] > 0 {
            actions.push(Action::WorkerCrashes(worker));
        }
    }
}
