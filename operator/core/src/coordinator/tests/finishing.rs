//! The last command: when it runs, what its failures do, and who remembers that it has run.

use hyperflow_api::{
    ShardJobStatus,
    message::{Planned, Revoked},
};

use super::*;

fn finishing() -> Seen {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"exec": {"image": "i", "command": ["work"], "input": "Stdin", "output": "Stdout"}},
        "finally": {"command": ["merge"]}, "output": {"url": "file:///data/out/"}, "parallelism": 2,
        "workers": {"slots": 2, "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "failurePolicy": {"maxAttempts": 2, "backoff": {"initialSeconds": 5, "maxSeconds": 5}}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

/// Two shards, both done but for the facts that are still to come.
struct End {
    desk: Desk,
    said: u64,
    grants: Vec<Grant>,
}

impl End {
    fn near(seen: &Seen) -> Self {
        let mut desk = Desk::new(seen);
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::PodsSeen(vec![pod("pod-a"), pod("pod-b")]));
        desk.hello(1, "pod-a", 1, vec![]);
        let plan = desk.wants(1);
        let (digest, url) = ("blake3:00".into(), "file:///plan".into());
        let planned = Planned { shards: 2, files: 1, bytes: 2 << 20, digest, url };
        let mut end = Self { desk, said: 0, grants: vec![] };
        end.says(plan[0], News::Planned(planned));
        end.pass(1);
        assert_eq!(end.grants.len(), 2);
        end
    }

    /// The last command is granted.
    fn reached(seen: &Seen) -> (Self, Grant) {
        let mut end = Self::near(seen);
        for grant in std::mem::take(&mut end.grants) {
            assert_eq!(
                end.desk.coordinator.wanted_pods(end.desk.now()),
                WantedPods { run: 1, ..WantedPods::default() }
            );
            end.says(grant, published());
        }
        end.pass(1);
        let grant = end.takes(Target::Finally);
        (end, grant)
    }

    fn says(&mut self, grant: Grant, news: News) {
        self.said += 1;
        self.desk.report(1, facts(self.said, vec![fact(grant, news)]));
        self.hear();
    }

    fn hear(&mut self) {
        self.grants.extend(self.desk.orders(1).into_iter().flat_map(|orders| orders.grants));
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.desk.millis += 1000;
            if self.desk.coordinator.sessions.contains_key(&SessionId(1)) {
                let held = |grant: &Grant| Held { target: grant.target, epoch: grant.epoch, position: 0 };
                let held = self.grants.iter().map(held).collect();
                let first_number = self.said + 1;
                self.desk.report(1, Report { beat: true, held, capacity: 2, first_number, ..Report::default() });
            } else {
                self.desk.handle(Event::Flush);
            }
            if self.desk.storing.is_some() {
                self.desk.store();
            }
            self.desk.handle(Event::Flush);
            self.hear();
        }
    }

    fn takes(&mut self, target: Target) -> Grant {
        let grants = std::mem::take(&mut self.grants);
        assert_eq!(grants.iter().map(|grant| grant.target).collect::<Vec<_>>(), [target]);
        grants[0]
    }

    fn status(&self) -> &ShardJobStatus {
        self.desk.stored.last().unwrap()
    }

    fn says_of(&self, kind: &str) -> (String, String) {
        let it = self.status().conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (it.status.clone(), it.reason.clone())
    }

    fn finalized(&self) -> bool {
        self.status().recovery.as_ref().unwrap().finalized
    }
}

fn broken(ends_job: bool) -> News {
    News::Failed(Failure {
        class: FailureClass::Application,
        reason: "ExitCode".into(),
        message: "'merge' exited with code 3".into(),
        ends_job,
        checkpoint_unusable: false,
        exit_code: Some(3),
    })
}

fn yes(reason: &str) -> (String, String) {
    ("True".into(), reason.into())
}

#[test]
fn it_runs_when_all_shards_are_settled_and_the_end_waits_for_it() {
    let (mut end, finally) = End::reached(&finishing());
    assert_eq!((finally.attempt, finally.probe), (1, true));
    end.grants.push(finally);
    end.pass(40);
    assert_eq!(end.says_of("Reconciling"), yes("Finalizing"));
    assert_eq!(end.status().workers.as_ref().unwrap().desired, 1, "it needs a worker");
    assert!(end.desk.coordinator.wanted_pods(end.desk.now()).delete.is_empty());
    assert!(!end.finalized());
    end.grants.clear();
    end.says(finally, News::Finalized);
    assert!(end.grants.is_empty(), "swept before another operator could read that it has run");
    end.pass(2);
    assert!(end.finalized());
    let sweep = end.takes(Target::Sweep);
    end.says(sweep, News::Swept(None));
    end.pass(2);
    assert_eq!(end.says_of("Complete").0, "True");
}

#[test]
fn not_while_a_shard_is_left_and_not_when_one_has_failed() {
    let mut end = End::near(&finishing());
    let [first, second] = [end.grants.remove(0), end.grants.remove(0)];
    end.says(first, published());
    end.pass(2);
    assert!(end.grants.is_empty(), "{:?}", end.grants);
    end.says(second, broken(false));
    end.pass(8);
    let again = end.takes(second.target);
    end.says(again, broken(false));
    end.pass(3);
    let sweep = end.takes(Target::Sweep);
    end.says(sweep, News::Swept(None));
    end.pass(2);
    assert_eq!(end.says_of("Failed").0, "True");
}

#[test]
fn a_failure_is_tried_again_and_the_last_one_ends_the_job_before_it_is_swept() {
    for ends_job in [false, true] {
        let (mut end, finally) = End::reached(&finishing());
        end.says(finally, broken(ends_job));
        if !ends_job {
            end.pass(3);
            assert_eq!((end.grants.len(), end.says_of("Reconciling")), (0, yes("Finalizing")));
            end.pass(4);
            let again = end.takes(Target::Finally);
            assert_eq!(again.attempt, 2);
            end.says(again, broken(false));
        }
        assert!(end.grants.is_empty(), "swept before another operator could read that the job fails");
        end.pass(2);
        assert!(end.status().recovery.as_ref().unwrap().verdict.starts_with("FinallyFailed "));
        let sweep = end.takes(Target::Sweep);
        end.says(sweep, News::Swept(None));
        end.pass(2);
        assert_eq!(end.says_of("Failed"), yes("FinallyFailed"));
        let failed = end.status().conditions.iter().find(|it| it.type_ == "Failed").unwrap();
        assert!(failed.message.contains("exited with code 3"), "{}", failed.message);
    }
}

#[test]
fn a_plan_that_failed_first_leaves_it_all_attempts() {
    let mut desk = Desk::new(&finishing());
    desk.coordinator.chore.failures = 1;
    desk.coordinator
        .planned(desk.now(), Planned { shards: 1, files: 1, bytes: 1, digest: "d".into(), url: "file:///plan".into() });
    assert_eq!(desk.coordinator.chore.failures, 0);
}

#[test]
fn who_takes_over_knows_whether_it_has_run() {
    for finalized in [false, true] {
        let (mut end, finally) = End::reached(&finishing());
        if finalized {
            end.says(finally, News::Finalized);
        }
        end.pass(2);
        assert_eq!(end.finalized(), finalized);
        let seen = Seen { status: end.status().clone(), ..finishing() };
        let mut next = Desk::new(&seen);
        next.handle(Event::Flush);
        next.store();
        next.handle(Event::PodsSeen(vec![pod("pod-a")]));
        next.hello(1, "pod-a", 1, vec![]);
        let grants = next.wants(1);
        let wanted = if finalized { Target::Sweep } else { Target::Finally };
        assert_eq!(grants.iter().map(|grant| grant.target).collect::<Vec<_>>(), [wanted]);
    }
}

#[test]
fn it_is_handed_back_when_the_job_rests_and_stopped_when_it_goes_or_its_time_is_over() {
    let mut seen = finishing();
    seen.spec.active_deadline_seconds = Some(100);
    let (mut end, finally) = End::reached(&seen);
    let mut resting = seen.clone();
    (resting.spec.suspend, resting.generation) = (true, 2);
    end.desk.handle(Event::JobSeen(Box::new(resting)));
    end.says(finally, News::Released);
    end.pass(30);
    assert!(end.grants.is_empty());
    let going_on = Seen { generation: 3, ..seen.clone() };
    end.desk.handle(Event::JobSeen(Box::new(going_on.clone())));
    end.pass(1);
    let again = end.takes(Target::Finally);
    let revoked = Revoked { target: again.target, epoch: again.epoch };
    for deleted in [true, false] {
        let mut desk = Desk { coordinator: end.desk.coordinator.clone(), ..Desk::new(&seen) };
        desk.millis = end.desk.millis;
        if deleted {
            desk.handle(Event::JobSeen(Box::new(Seen { deleting: true, ..going_on.clone() })));
        } else {
            desk.millis += 99_000;
        }
        desk.handle(Event::Flush);
        assert!(desk.orders(1).iter().any(|orders| orders.revoked.contains(&revoked)));
        let verdict = desk.coordinator.verdict.clone().unwrap();
        assert_eq!(verdict == Verdict::Deleted, deleted, "{verdict:?}");
    }
}
