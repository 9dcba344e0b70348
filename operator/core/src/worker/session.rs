//! The session with the operator: greeting, who may command, heartbeats.

use hyperflow_api::{ids::Takeover, message::Welcome};

/// Heartbeats come this many times in a lease, so that one may be late.
const BEATS_PER_LEASE: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Hello was said.
    Greeting,
    Open,
}

/// The session, and what the last welcome set.
#[derive(Clone, Debug)]
pub(super) struct Session {
    state: State,
    /// The highest take-over that ever welcomed this process (P22).
    takeover: Takeover,
    beat_millis: u64,
    next_beat: u64,
    orphan_millis: u64,
    /// When an operator was last heard, the session ended, or the process began.
    heard: u64,
    /// What was last said about capacity.
    said_capacity: Option<u32>,
}

impl Session {
    pub(super) fn new(now: u64) -> Self {
        Self {
            state: State::Closed,
            takeover: Takeover::default(),
            beat_millis: 1000,
            next_beat: 0,
            orphan_millis: 600_000,
            heard: now,
            said_capacity: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The highest term that ever welcomed this process.
    pub(super) fn highest_term(&self) -> u64 {
        self.takeover.term
    }

    pub(super) fn greet(&mut self) {
        self.state = State::Greeting;
    }

    pub(super) fn close(&mut self, now: u64) {
        if self.is_open() {
            self.heard = now;
        }
        self.state = State::Closed;
    }

    pub(super) fn heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// Whether this operator may command: not one with a lower term than we have seen.
    pub(super) fn welcome(&mut self, now: u64, welcome: &Welcome) -> bool {
        if welcome.takeover.term < self.takeover.term {
            self.state = State::Closed;
            return false;
        }
        self.state = State::Open;
        self.takeover = welcome.takeover;
        self.beat_millis = (u64::from(welcome.lease_millis) / BEATS_PER_LEASE).max(1);
        self.orphan_millis = u64::from(welcome.orphan_seconds) * 1000;
        self.next_beat = now;
        self.said_capacity = None;
        true
    }

    /// Whether a heartbeat is due; asked once, it is taken as sent.
    pub(super) fn beat(&mut self, now: u64) -> bool {
        let due = self.is_open() && now >= self.next_beat;
        if due {
            self.next_beat = now + self.beat_millis;
        }
        due
    }

    /// Whether the operator does not know this capacity yet; asked once, it is taken as said.
    pub(super) fn say_capacity(&mut self, capacity: u32) -> bool {
        let news = self.said_capacity != Some(capacity);
        self.said_capacity = Some(capacity);
        news
    }

    /// No operator was heard for longer than a worker may go on alone (P17).
    pub(super) fn is_orphaned(&self, now: u64) -> bool {
        now >= self.orphaned_at()
    }

    /// When the next heartbeat is due.
    pub(super) fn next_beat(&self) -> Option<u64> {
        self.is_open().then_some(self.next_beat)
    }

    /// When it will have been alone for too long. In a session it is not, however little there is to say: nobody speaks to a
    /// worker whose one shard takes an hour, and the transport ends a stream whose other end does not answer.
    pub(super) fn orphaned_at(&self) -> u64 {
        if self.is_open() {
            return u64::MAX;
        }
        self.heard.saturating_add(self.orphan_millis)
    }
}
