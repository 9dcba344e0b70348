//! What failures do by the rules of the spec, how many shards may fail, and when a job stops before its end.

use hyperflow_api::{ShardJobStatus, status::ShardCounts};
use serde_json::Value;

use super::*;

fn with_policy(policy: &Value) -> Seen {
    let spec = json!({
        "source": {"numbers": {"count": 100}}, "task": {"noop": {}}, "parallelism": 2, "workers": {"slots": 2},
        "failurePolicy": policy
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

fn failure(class: FailureClass, exit_code: Option<i32>) -> Failure {
    let reason = exit_code.map_or(class.name().to_owned() + "Reason", |code| format!("ExitCode{code}"));
    Failure { class, reason, message: "as told".into(), ends_job: false, checkpoint_unusable: false, exit_code }
}

fn exits(code: i32) -> News {
    News::Failed(failure(FailureClass::Application, Some(code)))
}

/// A desk with one worker of many slots on node-1, and how many facts it has said.
struct Lone {
    desk: Desk,
    said: u64,
}

impl Lone {
    fn new(policy: &Value) -> Self {
        let mut desk = Desk::new(&with_policy(policy));
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::PodsSeen(vec![pod("a"), Pod { node: Some("node-2".into()), ..pod("b") }]));
        desk.hello(1, "a", 1, vec![]);
        Self { desk, said: 0 }
    }

    /// Time passes, what is written is stored, and the worker takes so many shards.
    fn takes(&mut self, capacity: u32) -> Vec<Grant> {
        self.desk.millis += 1000;
        if self.desk.storing.is_some() {
            self.desk.store();
        }
        self.desk.report(1, Report { capacity, beat: true, ..Report::default() });
        self.desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect()
    }

    fn says(&mut self, grant: Grant, news: News) {
        self.said += 1;
        self.desk.report(1, Report { capacity: 0, ..facts(self.said, vec![fact(grant, news)]) });
    }

    /// Takes shards one at a time and ends them all alike; how many attempts there were.
    fn works(&mut self, most: u32, news: &News) -> u32 {
        let mut attempts = 0;
        while attempts < most && self.desk.coordinator.verdict.is_none() {
            for grant in self.takes(1) {
                self.says(grant, news.clone());
                attempts += 1;
            }
        }
        attempts
    }

    fn settle(&mut self) -> ShardJobStatus {
        for _ in 0..4 {
            self.takes(0);
        }
        self.desk.stored.last().unwrap().clone()
    }

    fn condition(&mut self, kind: &str) -> (String, String, String) {
        let status = self.settle();
        let found = status.conditions.into_iter().find(|it| it.type_ == kind).unwrap();
        (found.status, found.reason, found.message)
    }
}

#[test]
fn an_ignored_failure_uses_up_no_attempt_and_ends_all_the_same() {
    let rule = json!({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}});
    let mut lone = Lone::new(&json!({"maxAttempts": 2, "backoff": {"initialSeconds": 0}, "rules": [rule]}));
    let grant = lone.takes(1)[0];
    lone.says(grant, exits(75));
    let history = lone.desk.coordinator.shards().history(0).unwrap();
    assert_eq!((history.failures, history.losses), (0, 1));
    for attempt in 2..=20 {
        assert!(lone.desk.coordinator.shards().failed().is_empty(), "given up before attempt {attempt}");
        let grant = lone.takes(1)[0];
        assert_eq!((grant.target, grant.attempt), (Target::Shard(0), attempt));
        lone.says(grant, exits(75));
    }
    assert_eq!(lone.desk.coordinator.shards().failed().to_string(), "0");
    let sample = &lone.desk.coordinator.failures[0];
    assert_eq!(sample.count, 20);
    assert_eq!(sample.message, "as told (not counted, 20 of at most 20; Ignore by spec.failurePolicy.rules[0])");
}

#[test]
fn a_rule_gives_up_the_shard_or_the_job_at_once() {
    let rules = json!([
        {"action": "FailShard", "onExitCodes": {"operator": "In", "values": [3]}},
        {"action": "FailJob", "onClasses": ["Store"], "onMessagePattern": "told$"}
    ]);
    let mut lone = Lone::new(&json!({"rules": rules}));
    let grants = lone.takes(2);
    lone.says(grants[0], exits(3));
    assert!(lone.desk.coordinator.shards().failed().contains(0));
    lone.says(grants[1], exits(1));
    assert!(lone.desk.coordinator.shards().waiting().contains_key(&1), "no rule matches: another attempt");
    let third = lone.takes(1)[0];
    lone.says(third, News::Failed(failure(FailureClass::Store, None)));
    let (status, reason, message) = lone.condition("Failed");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "FailurePolicy"));
    assert_eq!(message, "shard 2: StoreReason: as told; FailJob by spec.failurePolicy.rules[1]");
}

#[test]
fn what_the_program_calls_bad_input_is_not_tried_again_and_a_read_error_is() {
    let mut lone = Lone::new(&json!({}));
    let grants = lone.takes(2);
    lone.says(grants[0], News::Failed(failure(FailureClass::BadInput, Some(65))));
    lone.says(grants[1], News::Failed(failure(FailureClass::BadInput, None)));
    let shards = lone.desk.coordinator.shards();
    assert!(shards.failed().contains(0) && shards.waiting().contains_key(&1));
}

#[test]
fn after_too_much_memory_another_node_is_preferred_for_a_while() {
    let mut lone = Lone::new(&json!({"backoff": {"initialSeconds": 0}}));
    lone.desk.hello(2, "b", 1, vec![]);
    let grant = lone.takes(1)[0];
    lone.says(grant, News::Failed(failure(FailureClass::OutOfMemory, None)));
    assert_eq!(lone.takes(1)[0].target, Target::Shard(1), "it is left to node-2, which has no room now");
    let other = lone.desk.wants(2);
    assert_eq!((other[0].target, other[0].attempt), (Target::Shard(0), 2));
    lone.desk.report(2, facts(1, vec![fact(other[0], News::Failed(failure(FailureClass::OutOfMemory, None)))]));
    for _ in 0..12 {
        lone.takes(0);
        lone.desk.report(2, Report { beat: true, capacity: 0, ..Report::default() });
    }
    assert_eq!(lone.takes(1)[0].target, Target::Shard(0), "the other way round it is node-1's at once");
}

#[test]
fn where_no_other_node_has_a_worker_nothing_is_waited_for() {
    let mut lone = Lone::new(&json!({"backoff": {"initialSeconds": 0}}));
    let grant = lone.takes(1)[0];
    lone.says(grant, News::Failed(failure(FailureClass::OutOfMemory, None)));
    assert_eq!(lone.takes(1)[0].target, Target::Shard(0));
}

#[test]
fn when_the_other_node_has_no_room_for_long_any_will_do() {
    let mut lone = Lone::new(&json!({"backoff": {"initialSeconds": 0}}));
    lone.desk.hello(2, "b", 1, vec![]);
    let grant = lone.takes(1)[0];
    lone.says(grant, News::Failed(failure(FailureClass::OutOfMemory, None)));
    for _ in 0..10 {
        lone.takes(0);
        lone.desk.report(2, Report { beat: true, capacity: 0, ..Report::default() });
    }
    assert_eq!(lone.takes(1)[0].target, Target::Shard(0));
}

#[test]
fn a_rule_on_lost_workers_counts_until_the_cluster_knows_better() {
    let rules = json!([{"action": "Count", "onClasses": ["WorkerLost"]}]);
    let mut lone = Lone::new(&json!({"maxAttempts": 3, "rules": rules}));
    lone.takes(1);
    lone.desk.handle(Event::SessionClosed(SessionId(1)));
    lone.desk.millis += 300;
    lone.desk.handle(Event::Flush);
    let history = |lone: &Lone| lone.desk.coordinator.shards().history(0).unwrap();
    assert_eq!((history(&lone).failures, history(&lone).losses, history(&lone).kills), (1, 0, 0));
    let evicted = Pod { disruption: Some(("Evicted".into(), "drained".into())), ..pod("a") };
    lone.desk.handle(Event::PodsSeen(vec![evicted, pod("b")]));
    assert_eq!((history(&lone).failures, history(&lone).losses, history(&lone).kills), (0, 1, 0));
}

#[test]
fn a_rule_on_evictions_is_asked_when_the_cluster_says_so() {
    for (action, failed) in [("FailShard", "0"), ("Count", ""), ("Ignore", "")] {
        let rules = json!([{"action": action, "onClasses": ["Evicted"]}]);
        let mut lone = Lone::new(&json!({"rules": rules}));
        lone.takes(1);
        lone.desk.handle(Event::SessionClosed(SessionId(1)));
        lone.desk.millis += 300;
        lone.desk.handle(Event::Flush);
        assert!(lone.desk.coordinator.shards().waiting().contains_key(&0));
        let evicted = Pod { disruption: Some(("Evicted".into(), "drained".into())), ..pod("a") };
        lone.desk.handle(Event::PodsSeen(vec![evicted, pod("b")]));
        let shards = lone.desk.coordinator.shards();
        assert_eq!(shards.failed().to_string(), failed, "{action}");
        let counted = shards.history(0).map(|history| (history.failures, history.losses));
        let expected = match action {
            "FailShard" => None,
            "Count" => Some((1, 0)),
            _ => Some((0, 1)),
        };
        assert_eq!(counted, expected, "{action}");
    }
}

#[test]
fn an_image_that_cannot_be_had_fails_the_job_where_a_rule_says_so() {
    let rules = json!([{"action": "FailJob", "onClasses": ["ImagePull"]}]);
    let mut lone = Lone::new(&json!({"rules": rules}));
    let stuck = Pod { trouble: Some(("ImagePullBackOff".into(), "no such image".into())), ..pod("c") };
    lone.desk.handle(Event::PodsSeen(vec![pod("a"), stuck]));
    assert_eq!(lone.condition("Failed").1, "FailurePolicy");
}

#[test]
fn as_many_failures_as_are_allowed_end_complete_and_say_so() {
    let mut lone = Lone::new(&json!({"maxAttempts": 1, "maxFailedShards": "2%"}));
    lone.works(98, &published());
    lone.works(2, &exits(1));
    let (status, reason, message) = lone.condition("Complete");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "SucceededWithFailures"));
    assert_eq!(message, "2 of 100 shards failed: 98-99, which `maxFailedShards` allows");
    assert_eq!(lone.condition("Failed").0, "False");
    crate::invariants::the_end_is_explained(lone.desk.stored.last().unwrap()).unwrap();
}

#[test]
fn one_more_fails_the_job_at_its_end_or_at_once() {
    for (when, left) in [("Finish", 100), ("Stop", 4)] {
        let policy = json!({"maxAttempts": 1, "maxFailedShards": 2, "whenExceeded": when});
        let mut lone = Lone::new(&policy);
        lone.works(1, &published());
        lone.works(3, &exits(1));
        lone.works(200, &published());
        let (status, reason, message) = lone.condition("Failed");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "MaxFailedShardsExceeded"), "{when}");
        assert!(message.starts_with("3 of 100 shards failed: 1-3, and `maxFailedShards` allows 2"), "{message}");
        let shards = lone.settle().shards.unwrap();
        assert_eq!(shards.succeeded + shards.failed, left, "{when}");
    }
    let mut lone = Lone::new(&json!({"maxAttempts": 1, "maxFailedShards": "0%"}));
    lone.works(1, &exits(1));
    lone.works(99, &published());
    assert_eq!(lone.condition("Failed").1, "FailedShards");
}

#[test]
fn nothing_is_leased_ahead_before_a_shard_has_succeeded() {
    let mut lone = Lone::new(&json!({"maxAttempts": 1}));
    let grants = lone.takes(50);
    assert_eq!(grants.len(), 2, "one for each slot");
    lone.says(grants[0], exits(2));
    assert_eq!(lone.takes(50).len(), 1);
    lone.says(grants[1], published());
    assert_eq!(lone.takes(50).len(), 49);
}

#[test]
fn a_job_whose_first_shards_all_fail_alike_stops_and_a_successor_would_say_the_same() {
    let mut lone = Lone::new(&json!({"maxAttempts": 1, "maxFailedShards": "100%"}));
    assert_eq!(lone.works(100, &exits(2)), 20);
    let (_, reason, message) = lone.condition("Failed");
    assert_eq!(reason, "AllShardsFailAlike");
    assert!(
        message.contains("Application ExitCode2, and none succeeded: as told (attempt 1 of 1)")
            && message.contains("rerun"),
        "{message}"
    );

    let mut lone = Lone::new(&json!({"maxAttempts": 1, "maxFailedShards": "100%"}));
    assert_eq!(lone.works(19, &exits(2)), 19);
    let left = Seen { status: lone.settle(), ..with_policy(&json!({"maxAttempts": 1})) };
    let mut next = Desk::new(&left);
    next.handle(Event::Flush);
    assert!(next.coordinator.verdict.is_none());
    assert_eq!(lone.works(1, &exits(2)), 1);
    let status = lone.desk.stored.iter().rev().find(|status| status.shards.as_ref().unwrap().failed == 19).unwrap();
    let shards =
        ShardCounts { failed: 20, failed_indexes: "0-19".into(), pending: 80, ..status.shards.clone().unwrap() };
    let status = ShardJobStatus { shards: Some(shards), ..status.clone() };
    let mut next = Desk::new(&Seen { status, ..left });
    next.handle(Event::Flush);
    assert!(
        matches!(next.coordinator.verdict, Some(Verdict::Failed { ref reason, .. }) if reason == "AllShardsFailAlike")
    );
}

#[test]
fn one_success_or_another_failure_among_the_first_and_a_job_goes_on() {
    for first in [published(), exits(9)] {
        let mut lone = Lone::new(&json!({"maxAttempts": 1}));
        lone.works(1, &first);
        assert_eq!(lone.works(50, &exits(2)), 50);
        assert!(lone.desk.coordinator.verdict.is_none());
    }
}
