//! Sessions of workers: who may speak, heartbeats, and acknowledgements.

use hyperflow_api::{
    ids::{Epoch, WorkerId},
    message::{FromOperator, Held, Hello, Orders, PROTOCOL, Report, Revoked, Target, Welcome},
};

use super::{Coordinator, Effect, SessionId, Worker};
use crate::{Now, history::Blame, shards::Seat};

/// A broken stream is mended by the worker within this time, or the worker counts as lost. Long enough for a
/// connection that was reset, short enough that a killed worker's shards run elsewhere in half a second.
const RECONNECT_MILLIS: u64 = 250;

/// So many take-overs an operator may have missed, and no more: a worker that is not honest must not use the terms up.
const HONEST_TERMS: u64 = 1_000_000;

/// A worker whose pod we have not seen may be quicker than our watch, by this much.
const STRANGER_MILLIS: u64 = 10_000;

impl Coordinator {
    pub(super) fn session_opened(&mut self, now: Now, session: SessionId, hello: Hello, effects: &mut Vec<Effect>) {
        if hello.protocol != PROTOCOL {
            return effects.push(Effect::Close { session, reason: "worker speaks another version of the protocol" });
        }
        if hello.job != self.seen.uid {
            return effects.push(Effect::Close { session, reason: "worker belongs to another job" });
        }
        if hello.heard > self.takeover.term.saturating_add(HONEST_TERMS) {
            return effects.push(Effect::Close { session, reason: "no operator can have had the term it speaks of" });
        }
        if hello.heard > self.takeover.term {
            self.outranked = self.outranked.max(Some(hello.heard));
            return effects.push(Effect::Close { session, reason: "worker knows an operator of a higher term" });
        }
        self.replace_process(now, &hello.worker);
        self.found_alive(&hello.worker);
        let seat = self.seat(&hello.worker);
        let old = self.workers.remove(&seat);
        if let Some(stale) = old.as_ref().and_then(|worker| worker.session) {
            self.sessions.remove(&stale);
            effects.push(Effect::Close { session: stale, reason: "worker opened another session" });
        }
        self.sessions.insert(session, seat);
        self.host_greets(seat, hello.host.as_ref());
        let worker = Worker {
            id: hello.worker,
            node: String::new(),
            session: Some(session),
            welcomed: false,
            claims: hello.held,
            slots: hello.slots.max(1),
            host: hello.host,
            capacity: 0,
            leaving: false,
            speed: old.as_ref().map(|worker| worker.speed).unwrap_or_default(),
            held: old.map(|worker| worker.held).unwrap_or_default(),
            ends: 0,
            since: now.millis,
            heard: now.millis,
            lost_at: None,
            received: 0,
            acked: 0,
            orders: Orders::default(),
        };
        self.workers.insert(seat, worker);
        self.welcome_known(now, effects);
    }

    /// The same pod with another nonce: the old process is dead, and its leases with it (P2).
    fn replace_process(&mut self, now: Now, id: &WorkerId) {
        let old = self.seats.iter().find(|(known, _)| known.pod_uid == id.pod_uid && known.nonce != id.nonce);
        if let Some((_, &seat)) = old {
            self.lose_worker(now, seat);
        }
    }

    fn seat(&mut self, id: &WorkerId) -> Seat {
        let next = self.seats.values().max().map_or(0, |seat| seat.0 + 1);
        *self.seats.entry(id.clone()).or_insert(Seat(next))
    }

    /// Welcomes workers whose pods are ours: known by the pod's UID, whatever it says of itself. Nobody is welcomed under
    /// a term that is not stored.
    pub(super) fn welcome_known(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.writer.term_is_stored() {
            return;
        }
        self.turn_away(now, effects);
        let known = |worker: &Worker| {
            let pod = self.pool.pod(&worker.id.pod_uid);
            !worker.welcomed && pod.is_some_and(|pod| !self.is_of_earlier_run(pod))
        };
        let seats: Vec<Seat> = self.workers.iter().filter(|(_, worker)| known(worker)).map(|(&seat, _)| seat).collect();
        for seat in seats {
            self.welcome(now, seat, effects);
        }
    }

    fn welcome(&mut self, now: Now, seat: Seat, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get_mut(&seat) else { return };
        let Some(session) = worker.session else { return };
        worker.welcomed = true;
        worker.node = self.pool.node(&worker.id.pod_uid).unwrap_or_default().to_owned();
        worker.leaving |= self.pool.is_leaving(&worker.id.pod_uid);
        worker.ends = self.pool.pod(&worker.id.pod_uid).map_or(0, |pod| pod.ends);
        worker.orders.plan = self.plan.as_ref().map(|(plan, _)| super::facts::plan_ref(plan));
        let welcome = FromOperator::Welcome(Welcome {
            takeover: self.takeover,
            job: self.brief.clone(),
            lease_millis: u32::try_from(self.limits.lease_millis).unwrap_or(u32::MAX),
            orphan_seconds: self.limits.orphan_seconds,
        });
        effects.push(Effect::Send { session, message: welcome });
        self.blocks.stir();
        let claims = std::mem::take(&mut worker.claims);
        let held = claims.iter().map(|claim| claim.target).collect();
        let before = std::mem::replace(&mut worker.held, held);
        // What it held and does not name any more is lost: it cannot have forgotten a run that goes on.
        for target in before {
            if !claims.iter().any(|claim| claim.target == target) {
                self.lost(now, seat, target, Blame::None, None);
            }
        }
        for claim in &claims {
            self.represented(now, seat, claim);
        }
        self.writer.touch();
    }

    /// Ends a session by our own word: it is over at once, whatever the stream does.
    pub(super) fn close(&mut self, now: Now, session: SessionId, reason: &'static str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Close { session, reason });
        self.session_closed(now, session);
    }

    pub(super) fn session_closed(&mut self, now: Now, session: SessionId) {
        let Some(seat) = self.sessions.remove(&session) else { return };
        if let Some(worker) = self.workers.get_mut(&seat) {
            worker.session = None;
            worker.since = now.millis;
            worker.orders = Orders::default();
            self.blocks.stir();
            self.writer.touch();
        }
    }

    pub(super) fn reported(&mut self, now: Now, session: SessionId, report: Report, effects: &mut Vec<Effect>) {
        let Some(&seat) = self.sessions.get(&session) else { return };
        let Some(worker) = self.workers.get_mut(&seat) else { return };
        if !worker.welcomed {
            return self.close(now, session, "only who is welcomed may report", effects);
        }
        worker.heard = now.millis;
        worker.capacity = report.capacity;
        worker.leaving |= report.leaving;
        // Facts are taken in order, each once: a gap means messages were lost, which a stream does not do. A report without
        // facts says where the next one would be, and shows a gap as well.
        let expected = worker.received + 1;
        if report.first_number > expected {
            return self.close(now, session, "facts are missing: say them again", effects);
        }
        let known = usize::try_from(expected.saturating_sub(report.first_number)).unwrap_or(usize::MAX);
        let last = report.first_number.saturating_add(report.facts.len() as u64).saturating_sub(1);
        worker.received = worker.received.max(last);
        for fact in report.facts.into_iter().skip(known) {
            self.learn(now, seat, fact);
        }
        if report.beat {
            self.renew(now, seat, &report.held);
        }
        if let Some(holdings) = &report.holdings {
            self.stocked(now, seat, holdings);
        }
    }

    /// A heartbeat renews the leases that it names, and no others (P2). One that we do not know is fenced.
    fn renew(&mut self, now: Now, seat: Seat, held: &[Held]) {
        let deadline = now.millis + self.limits.lease_millis;
        for held in held {
            let live = match held.target {
                Target::Shard(index) => self.shards.renew(index, held.epoch, deadline, held.position),
                Target::Plan | Target::Finally | Target::Sweep => self.chore.renew(held.target, held.epoch, deadline),
            };
            if !live {
                self.revoke(seat, Revoked { target: held.target, epoch: held.epoch });
            }
        }
    }

    /// A lease ended; the worker has the target no more, unless it has it again under another epoch.
    pub(super) fn holds_no_more(&mut self, seat: Seat, target: Target, epoch: Epoch) {
        let again = self.lease_of(seat, target).is_some_and(|lease| lease.epoch != epoch);
        if let Some(worker) = self.workers.get_mut(&seat).filter(|_| !again) {
            worker.held.remove(&target);
        }
    }

    /// Fences a lease: tells the worker to stop.
    pub(super) fn revoke(&mut self, seat: Seat, lease: Revoked) {
        self.holds_no_more(seat, lease.target, lease.epoch);
        let worker = self.workers.get_mut(&seat).filter(|worker| worker.session.is_some());
        if let Some(worker) = worker.filter(|worker| !worker.orders.revoked.contains(&lease)) {
            worker.orders.revoked.push(lease);
        }
    }

    /// Ends sessions and workers whose time ran out.
    pub(super) fn end_silent_workers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let gone = |worker: &Worker| worker.session.is_none() && now.millis >= worker.since + RECONNECT_MILLIS;
        let lost: Vec<Seat> = self.workers.iter().filter(|(_, worker)| gone(worker)).map(|(&seat, _)| seat).collect();
        for seat in lost {
            self.lose_worker(now, seat);
        }
        let strange = |worker: &&Worker| !worker.welcomed && now.millis >= worker.since + STRANGER_MILLIS;
        let strangers: Vec<SessionId> =
            self.workers.values().filter(strange).filter_map(|worker| worker.session).collect();
        for session in strangers {
            self.close(now, session, "no pod of this job has this UID", effects);
        }
    }

    pub(super) fn next_session_wake(&self) -> Option<u64> {
        let wake = |worker: &Worker| match (worker.session, worker.welcomed) {
            (None, _) => Some(worker.since + RECONNECT_MILLIS),
            (Some(_), false) => Some(worker.since + STRANGER_MILLIS),
            (Some(_), true) => None,
        };
        self.workers.values().filter_map(wake).min()
    }

    /// A process is gone: what it held goes elsewhere.
    pub(super) fn lose_worker(&mut self, now: Now, seat: Seat) {
        let Some(worker) = self.workers.get(&seat) else { return };
        let held: Vec<Target> = worker.held.iter().copied().collect();
        self.lose(now, seat, &held, true);
        if let Some(worker) = self.workers.remove(&seat) {
            self.seats.remove(&worker.id);
            self.sessions.retain(|_, of| *of != seat);
            self.forget_host(seat);
        }
        self.writer.touch();
    }

    pub(super) fn send_orders(&mut self, effects: &mut Vec<Effect>) {
        for worker in self.workers.values_mut().filter(|worker| worker.welcomed) {
            let Some(session) = worker.session else { continue };
            if worker.orders != Orders::default() {
                let orders = std::mem::take(&mut worker.orders);
                effects.push(Effect::Send { session, message: FromOperator::Orders(orders) });
            }
        }
    }
}
