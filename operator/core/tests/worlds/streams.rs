//! Streams between workers and desks: two queues, in order, that break at either end first.

use std::sync::Arc;

use hyperflow_api::message::{FromOperator, FromWorker};
use hyperflow_core::invariants::{self, Broken};

use super::{
    desks::Told,
    kept::Kept,
    processes::{Act, Deed},
    promises::{CALLS, CALLS_MOST, Path, note},
    world::{State, World},
};

/// One end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Worker,
    Operator,
}

/// What is on its way. An end that is closed hears nothing; the other has yet to notice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Of both ends, never used twice.
    pub session: u64,
    pub worker: usize,
    pub operator: usize,
    pub to_operator: Vec<Kept<FromWorker>>,
    pub to_worker: Vec<Kept<FromOperator>>,
    /// The end that is closed.
    pub closed: Option<End>,
}

impl Stream {
    pub fn is_open_at(&self, end: End) -> bool {
        self.closed != Some(end)
    }
}

impl State {
    fn place(&self, session: u64) -> Option<usize> {
        self.streams.iter().position(|stream| stream.session == session)
    }

    /// The stream that a worker speaks on.
    pub fn stream_of(&self, worker: usize) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.worker == worker && stream.is_open_at(End::Worker))
    }

    /// One end closes; when both have, nothing is left. What goes to the closed end is lost.
    pub fn close(&mut self, session: u64, end: End) {
        let Some(place) = self.place(session) else { return };
        let stream = &mut self.streams[place];
        if stream.closed.is_some_and(|closed| closed != end) {
            self.streams.remove(place);
            return;
        }
        stream.closed = Some(end);
        match end {
            End::Worker => stream.to_worker.clear(),
            End::Operator => stream.to_operator.clear(),
        }
    }

    /// All streams of a process that ended.
    pub fn close_all(&mut self, of: impl Fn(&Stream) -> bool, end: End) {
        let sessions: Vec<u64> = self.streams.iter().filter(|stream| of(stream)).map(|stream| stream.session).collect();
        sessions.into_iter().for_each(|session| self.close(session, end));
    }

    pub fn send_to_worker(&mut self, session: u64, message: &Kept<FromOperator>) {
        if let Some(place) = self.place(session).filter(|place| self.streams[*place].closed.is_none()) {
            self.streams[place].to_worker.push(message.clone());
        }
    }
}

impl World {
    /// A worker without a stream opens one, and its hello is heard.
    pub fn connect(&self, state: &mut State, worker: usize, operator: usize) {
        let session = (worker as u64) << 8 | u64::from(state.used.connects[worker]);
        state.used.connects[worker] += 1;
        if state.used.connects[worker] > CALLS_MOST {
            let how = format!("worker {worker} called {CALLS_MOST} times");
            return note(&mut state.broken, Err(Broken { promise: CALLS, how }));
        }
        state.streams.push(Stream {
            session,
            worker,
            operator,
            to_operator: Vec::new(),
            to_worker: Vec::new(),
            closed: None,
        });
        state.streams.sort_by_key(|stream| stream.session);
        self.worker_does(state, worker, &Deed::Connected);
    }

    pub fn deliver(&self, state: &mut State, session: u64, to: End) {
        let Some(place) = state.place(session) else { return };
        let stream = &mut state.streams[place];
        let (worker, operator) = (stream.worker, stream.operator);
        match to {
            End::Operator => {
                let message = stream.to_operator.remove(0);
                self.desk_hears(state, operator, Told::Said { session, message });
            }
            End::Worker => {
                let message = stream.to_worker.remove(0);
                if let FromOperator::Orders(orders) = &*message {
                    if orders.grants.iter().any(|grant| grant.replaces.is_some()) {
                        self.paths.visit(Path::Reissued);
                    }
                    if !orders.revoked.is_empty() {
                        self.paths.visit(Path::Revoked);
                    }
                }
                self.worker_does(state, worker, &Deed::Heard(message));
            }
        }
    }

    /// An end learns that the stream is gone: the other end closed it, or the network.
    pub fn lose(&self, state: &mut State, session: u64, end: End) {
        let Some(place) = state.place(session) else { return };
        let (worker, operator) = (state.streams[place].worker, state.streams[place].operator);
        state.close(session, end);
        match end {
            End::Worker => self.worker_does(state, worker, &Deed::Disconnected),
            End::Operator => self.desk_hears(state, operator, Told::Closed { session }),
        }
    }

    /// Something happens in a process, and what it says is on its way.
    pub fn worker_does(&self, state: &mut State, worker: usize, deed: &Deed) {
        let act = self.processes.act(self.now(state), &state.workers[worker], deed);
        let Act { process, says, hangs_up, cleaned, resumed, broken } = &*act;
        note(&mut state.broken, broken.clone().map_or(Ok(()), Err));
        if let Some(process) = process {
            state.workers[worker] = process.clone();
        }
        for &index in cleaned {
            self.paths.visit(Path::Cleaned);
            note(&mut state.broken, invariants::acknowledged_is_stored(index, &state.status.done));
            note(&mut state.broken, invariants::cleaned_is_stored(index, &state.status.done));
            Arc::make_mut(&mut state.durable).retain(|(of, _)| *of != index);
        }
        for &(index, checkpoint) in resumed {
            self.paths.visit(Path::Resumed);
            // What was temporary of a committed shard may be gone: then its commit is found.
            let there = state.durable.contains(&(index, checkpoint.digest)) || self.is_committed(state, index);
            note(&mut state.broken, invariants::resumed_is_durable(index, checkpoint, there));
        }
        let Some(session) = state.stream_of(worker).map(|stream| stream.session) else { return };
        if let Some(place) = state.place(session).filter(|place| state.streams[*place].closed.is_none()) {
            state.streams[place].to_operator.extend(says.iter().cloned());
            // A hello is always heard at once: a worker that calls later says the same.
            let at_once = !self.scope.disorder || *deed == Deed::Connected;
            while at_once && state.place(session).is_some_and(|place| !state.streams[place].to_operator.is_empty()) {
                self.deliver(state, session, End::Operator);
            }
        }
        if *hangs_up {
            self.lose(state, session, End::Worker);
        }
    }
}
