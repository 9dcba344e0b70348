//! Another run of a job that has a plan (P25).

use hyperflow_api::{ShardJobStatus, status::ShardCounts};
use serde_json::Value;

use super::*;
use crate::status::has_ended;

fn job(path: Option<&str>) -> Seen {
    let mut spec = json!({
        "source": {"numbers": {"count": 6}}, "task": {"noop": {}}, "parallelism": 2, "workers": {"slots": 2},
        "failurePolicy": {"maxAttempts": 1}
    });
    if let Some(path) = path {
        spec["source"] = json!({"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}});
        spec["task"] = json!({"copy": {}});
        spec["output"] = json!({"url": "file:///data/out/", "path": path});
        spec["workers"]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    }
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

fn asks(seen: &Seen, status: &ShardJobStatus, rerun: Value) -> Seen {
    let mut seen = Seen { status: status.clone(), generation: seen.generation + 1, ..seen.clone() };
    seen.spec.rerun = Some(serde_json::from_value(rerun).unwrap());
    seen
}

fn counts(status: &ShardJobStatus) -> ShardCounts {
    status.shards.clone().unwrap()
}

fn is(status: &ShardJobStatus, kind: &str) -> String {
    status.conditions.iter().find(|it| it.type_ == kind).unwrap().status.clone()
}

impl Desk {
    fn opened(seen: &Seen, pods: Vec<Pod>) -> Self {
        let mut desk = Self::new(seen);
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::PodsSeen(pods));
        desk
    }

    fn says_all(&mut self, session: u64, first: u64, grants: &[Grant], news: &News) {
        let all = grants.iter().map(|grant| fact(*grant, news.clone())).collect();
        self.report(session, Report { beat: true, ..facts(first, all) });
    }

    fn last(&self) -> &ShardJobStatus {
        self.stored.last().unwrap()
    }

    fn stores(&mut self) {
        for _ in 0..3 {
            self.millis += 1000;
            self.handle(Event::Flush);
            if self.storing.is_some() {
                self.store();
            }
        }
    }

    /// Works on everything; the shards in `fails` fail. The next fact is number `next`.
    fn works_off(&mut self, session: u64, mut next: u64, fails: &[u32]) -> Vec<u32> {
        let mut done = Vec::new();
        let mut grants = self.wants(session);
        while !grants.is_empty() {
            for grant in std::mem::take(&mut grants) {
                let Target::Shard(index) = grant.target else { continue };
                let news = if fails.contains(&index) { broken() } else { published() };
                self.says_all(session, next, &[grant], &news);
                next += 1;
                done.push(index);
                let granted = |orders: Orders| orders.grants;
                grants.extend(self.orders(session).into_iter().flat_map(granted));
            }
            self.stores();
        }
        done
    }
}

fn broken() -> News {
    let (class, reason, message) = (FailureClass::Application, "ExitCode1".to_owned(), "broken".to_owned());
    News::Failed(Failure { class, reason, message, ends_job: false, checkpoint_unusable: false, exit_code: Some(1) })
}

fn of_run(uid: &str, run: u32) -> Pod {
    Pod { made_of: Some(made_of("digest", run)), ..pod(uid) }
}

/// A job that ended with shards 1 and 4 failed.
fn ended(path: Option<&str>) -> (Seen, ShardJobStatus) {
    let seen = job(path);
    let mut desk = Desk::opened(&seen, vec![of_run("a", 1)]);
    desk.hello(1, "a", 1, vec![]);
    let mut next = 1;
    if path.is_some() {
        let plan = desk.wants(1);
        let planned =
            Planned { shards: 6, files: 1, bytes: 6 << 20, digest: "blake3:00".into(), url: "file:///p".into() };
        desk.says_all(1, 1, &plan, &News::Planned(planned));
        next = 2;
        desk.stores();
        desk.orders(1);
        desk.handle(Event::SessionClosed(SessionId(1)));
        desk.hello(2, "a", 1, vec![]);
        next -= 1;
        assert_eq!(desk.works_off(2, next, &[1, 4]).len(), 6);
        desk.millis += 60_000;
    } else {
        assert_eq!(desk.works_off(1, next, &[1, 4]).len(), 6);
    }
    desk.stores();
    desk.stores();
    let status = desk.last().clone();
    assert_eq!(is(&status, "Failed"), "True", "{status:?}");
    assert!(has_ended(&seen.spec, &status, 1));
    (seen, status)
}

#[test]
fn what_failed_runs_again_and_what_is_published_stays() {
    let (seen, status) = ended(None);
    let again = asks(&seen, &status, json!({"nonce": "b"}));
    assert!(!has_ended(&again.spec, &status, 2));
    let mut desk = Desk::opened(&again, vec![of_run("a", 1), of_run("b", 2)]);
    let first = desk.last().clone();
    assert_eq!((first.run, first.observed_rerun_nonce.as_deref()), (Some(2), Some("b")));
    assert_eq!(
        (is(&first, "Failed"), is(&first, "Stalled"), is(&first, "Reconciling")),
        ("False".into(), "False".into(), "True".into())
    );
    assert!(first.failures.is_empty() && first.completion_time.is_none() && first.report.is_none());
    assert_eq!((counts(&first).completed_indexes.as_str(), counts(&first).failed), ("0,2-3,5", 0));
    desk.hello(2, "b", 1, vec![]);
    assert_eq!(desk.works_off(2, 1, &[]), [1, 4]);
    desk.stores();
    let last = desk.last();
    assert_eq!((is(last, "Complete").as_str(), counts(last).succeeded), ("True", 6));
    crate::invariants::the_end_is_explained(last).unwrap();
}

#[test]
fn pods_of_an_earlier_run_go_and_are_not_listened_to() {
    let (seen, status) = ended(None);
    let again = asks(&seen, &status, json!({"nonce": "b"}));
    let mut desk = Desk::opened(&again, vec![of_run("a", 1), of_run("b", 2)]);
    let old = Held { target: Target::Shard(1), epoch: Epoch::default(), position: 0 };
    desk.hello(1, "a", 1, vec![old]);
    desk.report(1, facts(1, vec![Fact { target: Target::Shard(1), epoch: Epoch::default(), news: published() }]));
    assert_eq!(desk.closed, [SessionId(1)]);
    assert!(!desk.coordinator.shards().done().contains(1));
    let now = desk.now();
    let wanted = desk.coordinator.wanted_pods(now);
    assert_eq!((wanted.run, wanted.create.len()), (2, 0));
    assert_eq!(wanted.delete, [("a".to_owned(), "a".to_owned())]);
}

#[test]
fn all_or_some_that_succeeded_need_a_name_of_their_run() {
    let (seen, status) = ended(Some("{run}/part-{index}"));
    let begins = |rerun| counts(Desk::opened(&asks(&seen, &status, rerun), vec![]).last()).completed_indexes;
    assert_eq!(begins(json!({"nonce": "b", "scope": "All"})), "");
    assert_eq!(begins(json!({"nonce": "b", "scope": "Indexes", "indexes": "2-4"})), "0,5");
    let (seen, status) = ended(Some("part-{index}"));
    for rerun in [json!({"nonce": "b", "scope": "All"}), json!({"nonce": "b", "scope": "Indexes", "indexes": "0"})] {
        let asked = asks(&seen, &status, rerun);
        let desk = Desk::opened(&asked, vec![]);
        let last = desk.last();
        assert_eq!((last.run, last.observed_rerun_nonce.as_deref()), (Some(1), Some("b")));
        assert_eq!((is(last, "Failed").as_str(), counts(last)), ("True", counts(&status)));
        assert!(has_ended(&asked.spec, last, 2), "what is refused does not ask again");
    }
}

#[test]
fn a_nonce_at_creation_begins_nothing_and_one_taken_away_neither() {
    let mut seen = job(None);
    seen.spec.rerun = Some(serde_json::from_value(json!({"nonce": "a"})).unwrap());
    let mut desk = Desk::opened(&seen, vec![]);
    assert_eq!((desk.last().run, desk.last().observed_rerun_nonce.as_deref()), (Some(1), Some("a")));
    let mut without = Seen { generation: 2, status: desk.last().clone(), ..seen };
    without.spec.rerun = None;
    desk.handle(Event::JobSeen(Box::new(without)));
    assert!(!desk.coordinator.is_over());
}

#[test]
fn a_running_job_lets_go_at_once_and_the_next_desk_begins_the_run() {
    let seen = job(None);
    let mut desk = Desk::opened(&seen, vec![of_run("a", 1)]);
    desk.hello(1, "a", 1, vec![]);
    let grants = desk.wants(1);
    desk.says_all(1, 1, &grants[..1], &published());
    desk.stores();
    desk.orders(1);
    let status = desk.last().clone();
    let again = asks(&seen, &status, json!({"nonce": "b", "scope": "Failed"}));
    let written = desk.stored.len();
    desk.handle(Event::JobSeen(Box::new(again.clone())));
    desk.handle(Event::Flush);
    assert!(desk.coordinator.is_over(), "the desk closes");
    assert!(desk.orders(1).iter().any(|orders| !orders.revoked.is_empty()) && desk.stored.len() == written);
    // Whether the desk closed or its process died, the next one finds the same.
    let next = Desk::opened(&again, vec![of_run("a", 1)]);
    assert_eq!((next.last().run, counts(next.last()).completed_indexes.as_str()), (Some(2), "0"));
    assert!(next.last().recovery.as_ref().unwrap().term > status.recovery.unwrap().term);
    let third = Seen { status: next.last().clone(), ..again };
    assert_eq!(Desk::opened(&third, vec![]).last().run, Some(2), "and it begins once");
}

#[test]
fn the_task_may_change_with_a_run_and_nothing_else_may() {
    let seen = job(Some("part-{index}"));
    let (_, status) = ended(Some("part-{index}"));
    let mut again = asks(&seen, &status, json!({"nonce": "b"}));
    again.spec.task = serde_json::from_value(json!({"copy": {"copies": 1}})).unwrap();
    let mut desk = Desk::opened(&again, vec![]);
    assert_eq!(desk.last().run, Some(2));
    assert_eq!(desk.last().recovery.as_ref().unwrap().frozen, desk.coordinator.job.frozen);
    desk.handle(Event::JobSeen(Box::new(again.clone())));
    assert!(desk.coordinator.verdict.is_none());

    let mut moved = asks(&seen, &status, json!({"nonce": "b"}));
    moved.spec.output.as_mut().unwrap().url = "file:///data/other/".into();
    let desk = Desk::opened(&moved, vec![]);
    assert_eq!((desk.last().run, is(desk.last(), "Failed").as_str()), (Some(1), "True"));
}

#[test]
fn a_run_whose_end_is_decided_comes_to_it_first() {
    let seen = job(Some("part-{index}"));
    let (_, status) = ended(Some("part-{index}"));
    let mut desk = Desk::opened(&asks(&seen, &status, json!({"nonce": "b"})), vec![of_run("b", 2)]);
    desk.hello(1, "b", 1, vec![]);
    let grants = desk.wants(1);
    desk.says_all(1, 1, &grants, &published());
    desk.stores();
    let status = desk.last().clone();
    assert_eq!(is(&status, "Complete"), "False", "it is being swept");
    let third = asks(&seen, &status, json!({"nonce": "c"}));
    desk.handle(Event::JobSeen(Box::new(third.clone())));
    assert!(!desk.coordinator.is_over());
    assert_eq!(Desk::opened(&third, vec![]).last().run, Some(2), "nor does a successor begin it");
    desk.millis += 60_000;
    desk.stores();
    let status = desk.last().clone();
    assert_eq!((status.run, is(&status, "Complete").as_str()), (Some(2), "True"));
    assert_eq!(Desk::opened(&Seen { status, ..third }, vec![]).last().run, Some(3));
}
