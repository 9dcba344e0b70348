//! Streams between workers and desks: they delay, stall and break.

use std::collections::VecDeque;

use hyperflow_api::message::{FromOperator, FromWorker, News};
use hyperflow_core::{
    coordinator::{Event, SessionId},
    worker,
};

use super::world::World;

/// What is on its way in both directions, each with its time of arrival.
pub struct Stream {
    pub pod: u64,
    pub nonce: u64,
    pub operator: usize,
    pub desk: u64,
    to_operator: VecDeque<(u64, FromWorker)>,
    to_worker: VecDeque<(u64, FromOperator)>,
    opened: bool,
    pub closed: bool,
    /// Nothing passes, and both ends notice at this time.
    stalled_until: Option<u64>,
}

impl Stream {
    pub fn is_stalled(&self) -> bool {
        self.stalled_until.is_some()
    }
}

impl World {
    /// A worker without a session looks for an operator.
    pub fn connect(&mut self, pod: u64) {
        let open = |(number, operator): (usize, &super::operators::Operator)| operator.desk.is_some().then_some(number);
        let open: Vec<usize> = self.operators.iter().enumerate().filter_map(open).collect();
        let Some(operator) = self.chance.pick(&open) else { return };
        let (Some(desk), Some(process)) =
            (&self.operators[operator].desk, self.pods.get_mut(&pod).and_then(|pod| pod.process.as_mut()))
        else {
            return;
        };
        self.last_stream += 1;
        let stream = Stream {
            pod,
            nonce: process.id.nonce,
            operator,
            desk: desk.number,
            to_operator: VecDeque::new(),
            to_worker: VecDeque::new(),
            opened: false,
            closed: false,
            stalled_until: None,
        };
        self.streams.insert(self.last_stream, stream);
        process.session = Some(self.last_stream);
        self.process_handles(pod, worker::Event::Connected);
    }

    pub fn say(&mut self, pod: u64, says: Vec<FromWorker>) {
        let session = self.pods.get(&pod).and_then(|pod| pod.process.as_ref()?.session);
        for message in says {
            let Some(stream) = session.and_then(|id| self.streams.get_mut(&id)).filter(|stream| !stream.closed) else {
                continue;
            };
            if let FromWorker::Report(report) = &message
                && report.facts.iter().any(|fact| fact.news == News::Released)
            {
                self.store.visit("handed back");
            }
            let at = stream.to_operator.back().map_or(0, |(at, _)| *at).max(self.now + self.chance.below(40));
            stream.to_operator.push_back((at, message));
        }
    }

    pub fn send_to_worker(&mut self, session: SessionId, message: FromOperator) {
        let Some(stream) = self.streams.get_mut(&session.0).filter(|stream| !stream.closed) else { return };
        self.log = self.log.rotate_left(5) ^ self.now ^ session.0 ^ stream.nonce;
        let at = stream.to_worker.back().map_or(0, |(at, _)| *at).max(self.now + self.chance.below(40));
        stream.to_worker.push_back((at, message));
    }

    pub fn deliver_to_worker(&mut self, pod: u64) {
        let session = self.pods.get(&pod).and_then(|pod| pod.process.as_ref()?.session);
        let Some(id) = session else { return };
        while let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.stalled_until.is_none())
            && let Some((_, message)) = stream.to_worker.pop_front_if(|(at, _)| *at <= self.now)
        {
            if let FromOperator::Orders(orders) = &message {
                if orders.grants.iter().any(|grant| grant.replaces.is_some()) {
                    self.store.visit("lease re-issued");
                }
                if !orders.revoked.is_empty() {
                    self.store.visit("revoked");
                }
            }
            self.process_handles(pod, worker::Event::Heard(message));
        }
    }

    pub fn streams_deliver(&mut self) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            if self.streams[&id].stalled_until.is_some_and(|until| self.now >= until) {
                self.close(id);
            }
            while let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.stalled_until.is_none())
                && let Some((_, message)) = stream.to_operator.pop_front_if(|(at, _)| *at <= self.now)
            {
                let (session, operator, desk) = (SessionId(id), stream.operator, stream.desk);
                let event = match message {
                    FromWorker::Hello(hello) => {
                        stream.opened = true;
                        Event::SessionOpened { session, hello }
                    }
                    FromWorker::Report(report) => Event::Reported { session, report },
                };
                self.tell_desk(operator, desk, event);
            }
            let over = self.streams.get(&id).is_some_and(|stream| stream.closed && stream.to_operator.is_empty());
            if let Some(stream) = over.then(|| self.streams.remove(&id)).flatten() {
                self.tell_desk(stream.operator, stream.desk, Event::SessionClosed(SessionId(id)));
            }
        }
    }

    fn tell_desk(&mut self, operator: usize, desk: u64, event: Event) {
        if self.operators[operator].desk.as_ref().is_some_and(|open| open.number == desk) {
            self.desk_handles(operator, event);
        }
    }

    pub fn streams_of(&self, pod: u64) -> Vec<u64> {
        self.streams.iter().filter(|(_, stream)| stream.pod == pod).map(|(&id, _)| id).collect()
    }

    /// What was said before may still arrive at the operator; nothing more arrives at the worker.
    pub fn close(&mut self, id: u64) {
        let lost = self.chance.once_in(2);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.closed = true;
            let stalled = stream.stalled_until.take().is_some();
            stream.to_worker.clear();
            if !stream.opened || lost || stalled {
                stream.to_operator.clear();
            }
        }
    }

    /// The wire is dead and nobody knows yet.
    pub fn stall(&mut self, id: u64) {
        let until = self.now + self.chance.below(4000);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stalled_until = Some(until);
        }
    }
}
