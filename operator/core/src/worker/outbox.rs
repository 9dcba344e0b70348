//! Facts that the operator has not acknowledged yet (P12).

use std::collections::VecDeque;

use hyperflow_api::message::{Fact, News, Target};

/// Facts in the order they happened; the first `sent` of them were said in this session.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    facts: VecDeque<Fact>,
    sent: usize,
    /// Number, in this session, of the last fact that was acknowledged and dropped.
    dropped: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, fact: Fact) {
        self.facts.push_back(fact);
    }

    /// A new session: everything is said again, numbered from 1; acknowledgements of the old one mean nothing.
    pub(super) fn begin_session(&mut self) {
        self.sent = 0;
        self.dropped = 0;
    }

    /// What was not said yet in this session, with the number of the first.
    pub(super) fn unsent(&mut self) -> (u64, Vec<Fact>) {
        let first = self.dropped + self.sent as u64 + 1;
        let facts = self.facts.iter().skip(self.sent).cloned().collect();
        self.sent = self.facts.len();
        (first, facts)
    }

    /// Whether something was not said yet in this session, and that are results alone.
    pub(super) fn has_only_results(&self) -> bool {
        let mut unsent = self.facts.iter().skip(self.sent).peekable();
        unsent.peek().is_some() && unsent.all(|fact| matches!(fact.news, News::Published(_)))
    }

    /// Drops what is acknowledged; returns the shards whose commit is thereby stored.
    pub(super) fn acknowledge(&mut self, through: u64) -> Vec<u32> {
        let mut committed = Vec::new();
        while self.dropped < through && self.sent > 0 {
            let Some(fact) = self.facts.pop_front() else { break };
            self.sent -= 1;
            self.dropped += 1;
            if let (Target::Shard(index), News::Published(_)) = (fact.target, fact.news) {
                committed.push(index);
            }
        }
        committed
    }

    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hyperflow_api::{ids::Epoch, message::Published};

    use super::*;

    fn published(index: u32) -> Fact {
        let news = News::Published(Published { bytes: 0, crc32c: 0, found: false });
        Fact { target: Target::Shard(index), epoch: Epoch::default(), news }
    }

    #[test]
    fn a_new_session_repeats_what_was_not_acknowledged() {
        let mut outbox = Outbox::default();
        (0..4).for_each(|index| outbox.push(published(index)));
        assert_eq!(outbox.unsent().0, 1);
        assert_eq!(outbox.acknowledge(2), [0, 1]);
        outbox.push(published(4));
        let (first, facts) = outbox.unsent();
        assert_eq!((first, facts.len()), (5, 1));
        outbox.begin_session();
        let (first, facts) = outbox.unsent();
        assert_eq!((first, facts.len()), (1, 3));
        assert_eq!(outbox.acknowledge(99), [2, 3, 4]);
        assert!(outbox.is_empty());
    }
}
