//! A small world: what there is of it, what may happen next, and what then follows.

use std::sync::Arc;

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{Now, invariants::Broken};
use stateright::{Model, Property};

use super::{
    choices::Action,
    desks::{self, Desks, Status},
    kept::Kept,
    operators::Operator,
    processes::{Attempt, Deed, Process, Processes},
    promises::{self, Path, Paths},
    streams::{End, Stream},
};

pub const OPERATORS: usize = 2;
pub const WORKERS: usize = 2;
pub const SHARDS: usize = 3;

/// With a pause a broken stream counts as a lost worker, a heartbeat is due, and status may be written again.
const PAUSE_SECONDS: u8 = 1;

/// More than all pauses of a world together, so that leases and claims run out only by what counts as a trouble: that nobody
/// is heard for so long.
const LEASE_SECONDS: u8 = 3;
pub const LEASE_MILLIS: u64 = LEASE_SECONDS as u64 * 1000;

/// How much may happen, at most; without such bounds there is no end of states.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Things that go wrong: a take-over beyond the first, an operator or a worker that dies, a write without an answer, a
    /// stream that breaks, a silence as long as a lease.
    pub troubles: u8,
    pub pauses: u8,
    pub checkpoints: u8,
    /// A desk may be told several things before it flushes, what workers say takes its time, and pauses come at any time.
    /// Without it a desk flushes after each, hears workers at once (that an attempt reports late comes to the same), and
    /// pauses come when nothing is on its way.
    pub disorder: bool,
}

/// How much of that has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    pub troubles: u8,
    pub pauses: u8,
    pub checkpoints: u8,
    pub take_overs: u8,
    pub connects: [u8; WORKERS],
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    /// Seconds since the beginning.
    pub time: u8,
    /// What the API server has.
    pub status: Kept<Status>,
    /// How often the name of each result was created.
    pub commits: [u8; SHARDS],
    /// Checkpoints in the store: shard and digest.
    pub durable: Arc<Vec<(ShardIndex, u64)>>,
    pub operators: [Operator; OPERATORS],
    pub workers: [Kept<Process>; WORKERS],
    pub streams: Vec<Stream>,
    /// Writes that may still arrive, and whose answer nobody will hear: all on top of what is stored.
    pub strays: Vec<Kept<Status>>,
    pub used: Used,
    pub broken: Option<Kept<Broken>>,
}

impl State {
    pub fn astray(&mut self, status: Kept<Status>) {
        if !self.strays.contains(&status) {
            self.strays.push(status);
            self.strays.sort();
        }
    }
}

/// All worlds of a scope.
pub struct World {
    pub scope: Scope,
    pub desks: Desks,
    pub processes: Processes,
    pub paths: Arc<Paths>,
}

impl World {
    pub fn new(scope: Scope, paths: Arc<Paths>) -> Self {
        Self { scope, desks: Desks::new(desks::job(), scope.disorder), processes: Processes::new(), paths }
    }

    pub fn now(&self, state: &State) -> Now {
        Now { millis: u64::from(state.time) * 1000, unix: i64::from(state.time) }
    }

    pub fn is_committed(&self, state: &State, index: ShardIndex) -> bool {
        state.commits.get(index as usize).is_some_and(|commits| *commits > 0)
    }

    fn attempt<'a>(&self, state: &'a State, worker: usize, attempt: usize) -> &'a Attempt {
        state.workers[worker].attempts.values().nth(attempt).expect("an attempt")
    }

    fn follow(&self, state: &mut State, action: Action) {
        match action {
            Action::TakeOver(operator) => self.take_over(state, operator),
            Action::FlushDesk(operator) => self.desk_hears(state, operator, desks::Told::Flush),
            Action::WriteArrives(operator) => self.write_arrives(state, operator),
            Action::WriteGoesAstray(operator) => self.write_goes_astray(state, operator),
            Action::StrayArrives(place) => self.stray_arrives(state, place),
            Action::Look(operator) => self.look(state, operator),
            Action::OperatorFalls(operator) => {
                state.used.troubles += 1;
                self.end_desk(state, operator);
            }
            Action::Connect { worker, operator } => self.connect(state, worker, operator),
            Action::Deliver { session, to } => self.deliver(state, session, to),
            Action::Break { session, first } => {
                state.used.troubles += 1;
                self.lose(state, session, first);
            }
            Action::Notice { session, end } => self.lose(state, session, end),
            Action::Beat(worker) => self.worker_does(state, worker, &Deed::Flush),
            Action::Checkpoint { worker, attempt } => {
                state.used.checkpoints += 1;
                let it = self.attempt(state, worker, attempt);
                let made = (it.index, it.checkpoint().digest);
                let durable = Arc::make_mut(&mut state.durable);
                durable.push(made);
                durable.sort_unstable();
                self.worker_does(state, worker, &Deed::Checkpoint(attempt));
            }
            Action::Publish { worker, attempt } => {
                let index = self.attempt(state, worker, attempt).index;
                let found = self.is_committed(state, index);
                if found {
                    self.paths.visit(Path::LateFound);
                } else {
                    state.commits[index as usize] += 1;
                }
                self.worker_does(state, worker, &Deed::Commit { attempt, found });
            }
            Action::Report { worker, attempt } => self.worker_does(state, worker, &Deed::Report(attempt)),
            Action::Stop { worker, attempt } => self.worker_does(state, worker, &Deed::Stop(attempt)),
            Action::WorkerCrashes(worker) => {
                state.used.troubles += 1;
                state.close_all(|stream| stream.worker == worker && stream.is_open_at(End::Worker), End::Worker);
                let nonce = state.workers[worker].nonce + 1;
                state.workers[worker] = Processes::begin(self.now(state), worker, nonce);
            }
            Action::Pause => {
                state.used.pauses += 1;
                state.time += PAUSE_SECONDS;
            }
            Action::LongPause => {
                state.used.troubles += 1;
                state.time += LEASE_SECONDS;
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let begin = |worker| Processes::begin(Now::default(), worker, 0);
        vec![State {
            time: 0,
            status: self.desks.unseen(),
            commits: [0; SHARDS],
            durable: Arc::default(),
            operators: Default::default(),
            workers: [begin(0), begin(1)],
            streams: Vec::new(),
            strays: Vec::new(),
            used: Used::default(),
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            self.choices(state, actions);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        self.follow(&mut state, action);
        if state.operators.iter().all(Operator::leads) {
            self.paths.visit(Path::TwoLeaders);
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        promises::properties()
    }
}
