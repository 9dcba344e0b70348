//! Second attempts of shards that are far behind (P19).

use hyperflow_api::message::{Checkpoint, Planned, Revoked};

use super::*;
use crate::history::History;

const MIB: u64 = 1 << 20;

fn duplicating() -> Seen {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 4,
        "workers": {"slots": 1, "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "failurePolicy": {"maxAttempts": 1}, "speculation": {"mode": "Duplicate"}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

/// Workers 1, 2 and 3 on nodes of their own, with one slot each.
struct Race {
    desk: Desk,
    /// What each worker has been granted last, and how many facts it has said.
    granted: [Option<Grant>; 4],
    said: [u64; 4],
    positions: [u64; 4],
    announced: Vec<String>,
}

impl Race {
    fn of(seen: &Seen, shards: u32) -> Self {
        let mut desk = Desk::new(seen);
        desk.handle(Event::Flush);
        desk.store();
        let on = |uid: &str| Pod { node: Some(format!("node-{uid}")), ..pod(uid) };
        desk.handle(Event::PodsSeen(["1", "2", "3"].map(on).into()));
        let mut race = Self { desk, granted: [None; 4], said: [0; 4], positions: [0; 4], announced: Vec::new() };
        race.hello(1, 1, vec![]);
        race.beat(1);
        let plan = race.granted[1].take().unwrap();
        let (digest, url) = ("blake3:00".into(), "file:///plan".into());
        let planned = Planned { shards, files: 1, bytes: u64::from(shards) * MIB, digest, url };
        race.says(1, plan, News::Planned(planned));
        race.pass(1);
        race
    }

    /// Four shards, one second each; the third, shard 2, is with worker 3 and does not come to an end.
    fn with_a_straggler(seen: &Seen) -> Self {
        let mut race = Self::of(seen, 4);
        (2..=3).for_each(|worker| race.hello(worker, 1, vec![]));
        (1..=3).for_each(|worker| race.beat(worker));
        assert_eq!([1, 2, 3].map(|worker| race.shard(worker)), [0, 1, 2]);
        race.pass(1);
        race.publishes(1);
        assert_eq!(race.shard(1), 3);
        race.publishes(2);
        race.pass(1);
        race.publishes(1);
        race
    }

    fn hello(&mut self, worker: u64, nonce: u64, held: Vec<Held>) {
        let id = WorkerId { pod_uid: worker.to_string(), nonce };
        let job = JobUid("uid".into());
        let hello = Hello { protocol: PROTOCOL, job, worker: id, slots: 1, held, heard: 0, host: None };
        self.desk.handle(Event::SessionOpened { session: SessionId(worker), hello });
        self.said[usize::try_from(worker).unwrap()] = 0;
    }

    /// A heartbeat, with where its attempt is.
    fn beat(&mut self, worker: u64) {
        let place = usize::try_from(worker).unwrap();
        let held = self.granted[place].map(|grant| Held {
            target: grant.target,
            epoch: grant.epoch,
            position: self.positions[place],
        });
        let (held, first_number) = (held.into_iter().collect(), self.said[place] + 1);
        self.tells(worker, Report { beat: true, held, capacity: 1, first_number, ..Report::default() });
    }

    fn tells(&mut self, worker: u64, report: Report) {
        let now = self.desk.now();
        let session = SessionId(worker);
        for event in [Event::Reported { session, report }, Event::Flush] {
            for effect in self.desk.coordinator.handle(now, event) {
                match effect {
                    Effect::Announce(news) => self.announced.push(format!("{}: {}", news.reason, news.message)),
                    Effect::Send { session, message } => self.desk.said.push((session, message)),
                    Effect::StoreStatus { revision, status } => {
                        self.desk.stored.push(*status);
                        self.desk.storing = Some(revision);
                    }
                    _ => {}
                }
            }
        }
        self.hear();
    }

    /// Workers do as they are told.
    fn hear(&mut self) {
        for worker in 1..4 {
            for Orders { grants, revoked, .. } in self.desk.orders(worker) {
                let mine = &mut self.granted[usize::try_from(worker).unwrap()];
                *mine = mine.filter(|grant| !revoked.iter().any(|it| it.epoch == grant.epoch));
                if let Some(grant) = grants.into_iter().last() {
                    *mine = Some(grant);
                    self.positions[usize::try_from(worker).unwrap()] = grant.resume.map_or(0, |it| it.position);
                }
            }
        }
    }

    fn says(&mut self, worker: u64, grant: Grant, news: News) {
        let place = usize::try_from(worker).unwrap();
        self.said[place] += 1;
        self.tells(worker, Report { capacity: 1, ..facts(self.said[place], vec![fact(grant, news)]) });
    }

    fn publishes(&mut self, worker: u64) {
        let grant = self.granted[usize::try_from(worker).unwrap()].take().unwrap();
        self.says(worker, grant, published());
    }

    /// So many seconds, in which every worker is heard and every status stored.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.desk.millis += 1000;
            for worker in (1..4).rev() {
                if self.desk.coordinator.sessions.contains_key(&SessionId(worker)) {
                    self.beat(worker);
                }
            }
            if self.desk.storing.is_some() {
                self.desk.store();
            }
            self.desk.handle(Event::Flush);
            self.hear();
        }
    }

    fn shard(&self, worker: usize) -> u32 {
        match self.granted[worker].unwrap().target {
            Target::Shard(index) => index,
            other => panic!("{other:?}"),
        }
    }

    fn leased(&self) -> crate::shards::Leased {
        self.desk.coordinator.shards().leased()[&2]
    }

    fn history(&self) -> History {
        self.desk.coordinator.shards().history(2).unwrap()
    }

    /// The shard has a second attempt, with this worker.
    fn duplicated(mut self) -> (Self, usize) {
        self.pass(3);
        assert!(self.leased().twin.is_some(), "it has no second attempt");
        let twin = [1, 2].into_iter().find(|worker| self.granted[*worker].is_some()).unwrap();
        assert_eq!(self.shard(twin), 2);
        (self, twin)
    }
}

fn broken() -> News {
    News::Failed(Failure {
        class: FailureClass::Application,
        reason: "Broken".into(),
        message: "exit code 1".into(),
        ends_job: false,
        checkpoint_unusable: false,
        exit_code: None,
    })
}

fn at(number: u64, position: u64) -> Checkpoint {
    Checkpoint { number, position, digest: number }
}

#[test]
fn what_is_far_behind_runs_a_second_time_when_nothing_else_is_left() {
    let mut race = Race::with_a_straggler(&duplicating());
    race.says(3, race.granted[3].unwrap(), News::Checkpointed(at(1, MIB / 100)));
    let (race, twin) = race.duplicated();
    let grant = race.granted[twin].unwrap();
    assert_eq!((grant.attempt, grant.probe, grant.resume), (1, true, Some(at(1, MIB / 100))));
    let said = race.announced.iter().find(|news| news.starts_with("ShardDuplicated")).unwrap();
    assert!(said.contains("shard 2: after ") && said.contains("about 1 s"), "{said}");
    let counts = race.desk.coordinator.counts();
    assert_eq!((counts.active, counts.waiting, counts.succeeded), (1, 0, 3), "a shard is active once");
    let notes = race.desk.stored.last().unwrap().recovery.clone().unwrap();
    assert_eq!(notes.attempts.matches("2/w").count(), 1, "{}", notes.attempts);
}

#[test]
fn without_speculation_nothing_runs_twice() {
    let mut seen = duplicating();
    seen.spec.speculation.mode = hyperflow_api::speculation::SpeculationMode::Disabled;
    let mut race = Race::with_a_straggler(&seen);
    race.pass(60);
    assert!(race.leased().twin.is_none());
}

#[test]
fn nothing_runs_twice_while_something_else_is_left() {
    let mut race = Race::of(&duplicating(), 40);
    (2..=3).for_each(|worker| race.hello(worker, 1, vec![]));
    (1..=3).for_each(|worker| race.beat(worker));
    for _ in 0..15 {
        race.pass(1);
        (1..=2).for_each(|worker| race.publishes(worker));
        assert!(race.leased().twin.is_none());
        assert_eq!(race.shard(3), 2);
    }
}

#[test]
fn progress_counts_and_who_is_nearly_there_is_left_alone() {
    let mut race = Race::with_a_straggler(&duplicating());
    for tenth in 2..10 {
        race.positions[3] = MIB / 10 * tenth;
        race.pass(1);
        assert!(race.leased().twin.is_none() || tenth < 8, "about a second is left at {tenth} tenths");
        if race.leased().twin.is_some() {
            return assert!(tenth < 8);
        }
    }
    panic!("it was never behind");
}

#[test]
fn a_steady_attempt_of_usual_speed_is_never_behind() {
    let mut race = Race::with_a_straggler(&duplicating());
    for tenth in 6..10 {
        race.positions[3] = MIB / 10 * tenth;
        race.pass(1);
        assert!(race.leased().twin.is_none(), "less than two seconds are left");
    }
}

#[test]
fn the_first_result_counts_and_the_other_attempt_is_stopped() {
    for first in [0, 3] {
        let (mut race, twin) = Race::with_a_straggler(&duplicating()).duplicated();
        let (wins, loses) = if first == 3 { (3, twin) } else { (twin, 3) };
        let (winner, loser) = (race.granted[wins].take().unwrap(), race.granted[loses].unwrap());
        let place = u64::try_from(wins).unwrap();
        race.said[wins] += 1;
        let report = facts(race.said[wins], vec![fact(winner, published())]);
        race.desk.report(place, report);
        assert!(race.desk.coordinator.shards().done().contains(2));
        let revoked = Revoked { target: loser.target, epoch: loser.epoch };
        let told = race.desk.orders(u64::try_from(loses).unwrap());
        assert!(told.iter().any(|orders| orders.revoked == [revoked]), "{told:?}");
    }
}

#[test]
fn the_end_of_one_of_two_costs_the_shard_nothing() {
    for first in [true, false] {
        for news in [broken(), News::Released] {
            let (mut race, twin) = Race::with_a_straggler(&duplicating()).duplicated();
            let (ends, stays) = if first { (3, twin) } else { (twin, 3) };
            let (ended, other) = (race.granted[ends].take().unwrap(), race.granted[stays].unwrap());
            race.says(u64::try_from(ends).unwrap(), ended, news);
            assert_eq!(race.history(), History::default());
            assert_eq!((race.leased().lease.epoch, race.leased().twin.is_none()), (other.epoch, true));
            // The last one is an attempt like any other, and the job has one.
            race.granted[stays] = None;
            race.says(u64::try_from(stays).unwrap(), other, broken());
            assert!(race.desk.coordinator.shards().failed().contains(2));
        }
    }
}

#[test]
fn a_worker_that_dies_with_one_of_two_is_no_kill_and_nothing_is_put_right_later() {
    for first in [true, false] {
        let (mut race, twin) = Race::with_a_straggler(&duplicating()).duplicated();
        let dies = if first { 3 } else { twin };
        race.granted[dies] = None;
        race.desk.handle(Event::SessionClosed(SessionId(u64::try_from(dies).unwrap())));
        race.desk.millis += 300;
        race.desk.handle(Event::Flush);
        assert_eq!(race.history(), History::default());
        assert!(race.leased().twin.is_none());
        let mut pods: Vec<Pod> = race.desk.coordinator.pool.pods().cloned().collect();
        let pod = pods.iter_mut().find(|pod| pod.uid == dies.to_string()).unwrap();
        (pod.ends, pod.ended) = (1, Some(("OOMKilled".into(), "too much".into())));
        race.desk.handle(Event::PodsSeen(pods));
        assert_eq!(race.history(), History::default(), "what was not charged is not put right");
    }
}

#[test]
fn a_silent_worker_loses_its_half_only() {
    let (mut race, _) = Race::with_a_straggler(&duplicating()).duplicated();
    race.granted[3] = None;
    race.pass(11);
    assert_eq!((race.history(), race.leased().twin.is_none()), (History::default(), true));
    assert_eq!(race.leased().lease.epoch, [1, 2].into_iter().find_map(|place| race.granted[place]).unwrap().epoch);
}

#[test]
fn a_second_attempt_that_fails_is_not_begun_again_at_once() {
    let (mut race, mut twin) = Race::with_a_straggler(&duplicating()).duplicated();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let ended = race.granted[twin].take().unwrap();
        race.says(u64::try_from(twin).unwrap(), ended, broken());
        let before = race.desk.millis;
        while race.leased().twin.is_none() {
            race.pass(1);
        }
        pauses.push((race.desk.millis - before) / 1000);
        twin = [1, 2].into_iter().find(|worker| race.granted[*worker].is_some()).unwrap();
    }
    assert_eq!(pauses, [5, 10, 20]);
}

#[test]
fn a_suspect_runs_once() {
    let mut race = Race::of(&duplicating(), 4);
    (2..=3).for_each(|worker| race.hello(worker, 1, vec![]));
    (1..=3).for_each(|worker| race.beat(worker));
    race.desk.coordinator.shards.amend(2, |history| history.suspect = true);
    race.pass(1);
    (1..=2).for_each(|worker| race.publishes(worker));
    race.pass(1);
    race.publishes(1);
    race.pass(60);
    assert!(race.leased().twin.is_none());
}

#[test]
fn a_slow_worker_gets_no_second_attempt() {
    let mut race = Race::of(&duplicating(), 4);
    (1..=3).for_each(|worker| race.hello(worker, 1, vec![]));
    (1..=3).for_each(|worker| race.beat(worker));
    race.pass(1);
    race.publishes(2);
    race.pass(1);
    race.publishes(2);
    // One worker is left that took a minute for its shard: it would not be quicker.
    race.desk.handle(Event::SessionClosed(SessionId(2)));
    race.pass(58);
    race.publishes(1);
    race.pass(30);
    assert!(race.leased().twin.is_none());
    race.hello(2, 1, vec![]);
    race.pass(1);
    assert!(race.leased().twin.is_some(), "a quick one is back");
}

#[test]
fn after_a_take_over_both_attempts_may_go_on() {
    let (race, twin) = Race::with_a_straggler(&duplicating()).duplicated();
    let claim = |place: usize| {
        let Grant { target, epoch, .. } = race.granted[place].unwrap();
        Held { target, epoch, position: 5 }
    };
    for twice in [true, false] {
        let mut seen = Seen { status: race.desk.stored.last().unwrap().clone(), ..duplicating() };
        if !twice {
            seen.spec.speculation.mode = hyperflow_api::speculation::SpeculationMode::Disabled;
        }
        let mut next = Desk::new(&seen);
        next.handle(Event::Flush);
        next.store();
        next.handle(Event::PodsSeen(vec![pod("1"), pod("2"), pod("3")]));
        for place in [3, twin] {
            let worker = WorkerId { pod_uid: place.to_string(), nonce: 1 };
            let (job, held) = (JobUid("uid".into()), vec![claim(place)]);
            let hello = Hello { protocol: PROTOCOL, job, worker, slots: 1, held, heard: 0, host: None };
            next.handle(Event::SessionOpened { session: SessionId(u64::try_from(place).unwrap()), hello });
            next.handle(Event::Flush);
        }
        let leased = next.coordinator.shards().leased()[&2];
        assert_eq!(leased.lease.replaces, Some(claim(3).epoch));
        assert_eq!(leased.twin.and_then(|it| it.replaces), twice.then_some(claim(twin).epoch));
        let told = next.orders(u64::try_from(twin).unwrap());
        assert_eq!(told.iter().any(|orders| !orders.revoked.is_empty()), !twice, "{told:?}");
    }
}
