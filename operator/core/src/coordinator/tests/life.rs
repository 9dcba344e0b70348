//! Deadlines, a full output, what is said of workers that do not run, and what is estimated.

use hyperflow_api::{ShardJobStatus, message::Planned};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;

fn limited(seconds: i64) -> Seen {
    let mut seen = seen();
    seen.spec.active_deadline_seconds = Some(seconds);
    seen
}

fn copying() -> Seen {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 2,
        "workers": {"slots": 2, "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "failurePolicy": {"maxAttempts": 1, "backoff": {"initialSeconds": 5, "maxSeconds": 20}}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

fn full() -> News {
    let (reason, message) = ("OutputFull".into(), "cannot write '/data/out/x': No space left on device".into());
    let class = FailureClass::Store;
    News::Failed(Failure { class, reason, message, ends_job: false, checkpoint_unusable: false, exit_code: None })
}

impl Desk {
    /// So many seconds pass, in steps, and every status is stored.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.millis += 1000;
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.handle(Event::Flush);
        if self.storing.is_some() {
            self.store();
        }
    }

    /// What the next operator process finds, on another machine with the same date.
    fn successor(&self, seen: &Seen) -> Self {
        let seen = Seen { status: self.stored.last().unwrap().clone(), ..seen.clone() };
        let now = Now { millis: 50_000, unix: self.now().unix };
        let coordinator = Coordinator::take_over(now, &seen, 8, 0, Limits::default()).unwrap();
        let (said, closed, stored, since) = (vec![], vec![], vec![], now.unix - 50);
        Self { coordinator, millis: 50_000, stored, said, closed, storing: None, released: false, since, asked: vec![] }
    }

    fn edit(&mut self, seen: &mut Seen, change: impl FnOnce(&mut hyperflow_api::ShardJobSpec)) {
        change(&mut seen.spec);
        seen.generation += 1;
        self.handle(Event::JobSeen(Box::new(seen.clone())));
    }

    fn status(&self) -> &ShardJobStatus {
        self.stored.last().unwrap()
    }

    fn says(&self, kind: &str) -> Condition {
        self.status().conditions.iter().find(|condition| condition.type_ == kind).unwrap().clone()
    }

    /// A copy with a plan of so many shards, and a worker that may begin.
    fn of_copy(shards: u32) -> (Self, Vec<Grant>) {
        let mut desk = Self::new(&copying());
        desk.tick();
        desk.handle(Event::PodsSeen(vec![pod("pod-a"), pod("pod-b")]));
        desk.hello(1, "pod-a", 1, vec![]);
        let plan = desk.wants(1);
        let (digest, url) = ("blake3:00".into(), "file:///plan".into());
        let planned = Planned { shards, files: 1, bytes: u64::from(shards) << 20, digest, url };
        desk.millis += 1000;
        desk.report(1, facts(1, vec![fact(plan[0], News::Planned(planned))]));
        desk.tick();
        desk.handle(Event::Flush);
        let grants = desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect();
        (desk, grants)
    }

    /// What the first session is granted next, within the longest back-off; its next fact has this number.
    fn next_granted(&mut self, number: u64) -> Vec<Grant> {
        for _ in 0..21 {
            self.report(1, Report { beat: true, capacity: 2, first_number: number, ..Report::default() });
            self.pass(1);
            let grants = self.granted(1);
            if !grants.is_empty() {
                return grants;
            }
        }
        vec![]
    }

    fn granted(&mut self, session: u64) -> Vec<Grant> {
        self.orders(session).into_iter().flat_map(|orders| orders.grants).collect()
    }
}

#[test]
fn a_job_fails_when_its_time_is_over_and_says_what_was_done() {
    let mut desk = Desk::new(&limited(60));
    desk.tick();
    desk.handle(Event::PodsSeen(vec![pod("pod-a")]));
    desk.hello(1, "pod-a", 1, vec![]);
    let grants = desk.wants(1);
    desk.report(1, facts(1, vec![fact(grants[0], published())]));
    desk.pass(59);
    assert_eq!(desk.says("Failed").status, "False");
    desk.pass(3);
    let failed = desk.says("Failed");
    assert_eq!((failed.status.as_str(), failed.reason.as_str()), ("True", "DeadlineExceeded"));
    for word in ["60 s", "`spec.activeDeadlineSeconds`", "1 of 10 shards", "Create another ShardJob"] {
        assert!(failed.message.contains(word), "{}", failed.message);
    }
    assert_eq!(desk.says("Stalled").reason, "DeadlineExceeded");
    assert!(desk.orders(1).iter().any(|orders| !orders.revoked.is_empty()), "what ran was not stopped");
}

#[test]
fn the_deadline_may_be_raised_until_it_has_passed_and_not_after() {
    let mut seen = limited(60);
    let mut desk = Desk::new(&seen);
    desk.pass(50);
    desk.edit(&mut seen, |spec| spec.active_deadline_seconds = Some(90));
    desk.pass(30);
    assert_eq!(desk.says("Failed").status, "False");
    desk.pass(12);
    assert_eq!(desk.says("Failed").reason, "DeadlineExceeded");
    desk.edit(&mut seen, |spec| spec.active_deadline_seconds = None);
    desk.pass(5);
    assert_eq!(desk.says("Failed").reason, "DeadlineExceeded", "an end is an end");
}

#[test]
fn suspending_stops_the_clock_and_does_not_begin_it_anew() {
    let mut seen = limited(60);
    let mut desk = Desk::new(&seen);
    desk.pass(40);
    desk.edit(&mut seen, |spec| spec.suspend = true);
    desk.pass(300);
    assert_eq!(desk.status().recovery.as_ref().unwrap().clock, "40");
    desk.edit(&mut seen, |spec| spec.suspend = false);
    desk.pass(15);
    assert_eq!(desk.says("Failed").status, "False");
    desk.pass(7);
    assert_eq!(desk.says("Failed").reason, "DeadlineExceeded");
}

#[test]
fn the_clock_outlives_the_process_and_goes_on_while_there_is_none() {
    let seen = limited(60);
    let mut desk = Desk::new(&seen);
    desk.pass(20);
    // Nobody leads for half a minute.
    desk.millis += 30_000;
    let mut next = desk.successor(&seen);
    next.pass(8);
    assert_eq!(next.says("Failed").status, "False");
    next.pass(4);
    assert_eq!(next.says("Failed").reason, "DeadlineExceeded");
}

#[test]
fn a_job_suspended_from_the_beginning_has_all_its_time() {
    let mut seen = limited(60);
    seen.spec.suspend = true;
    let mut desk = Desk::new(&seen);
    desk.pass(100);
    let mut desk = desk.successor(&seen);
    desk.edit(&mut seen, |spec| spec.suspend = false);
    desk.pass(58);
    assert_eq!(desk.says("Failed").status, "False");
    desk.pass(4);
    assert_eq!(desk.says("Failed").reason, "DeadlineExceeded");
}

#[test]
fn without_a_plan_a_raised_deadline_lets_the_job_go_on() {
    let mut seen = Seen { spec: copying().spec, ..limited(30) };
    seen.spec.active_deadline_seconds = Some(30);
    let mut desk = Desk::new(&seen);
    desk.pass(32);
    assert!(desk.says("Failed").message.contains("Raise it"), "{}", desk.says("Failed").message);
    desk.millis += 900_000;
    seen.spec.active_deadline_seconds = Some(60);
    seen.generation += 1;
    let mut again = desk.successor(&seen);
    again.pass(25);
    assert_eq!(again.says("Failed").status, "False", "the time in which it had failed does not count");
    again.pass(10);
    assert_eq!(again.says("Failed").status, "True");
}

#[test]
fn a_full_output_uses_up_no_attempt_and_nothing_is_begun_meanwhile() {
    let (mut desk, mut grants) = Desk::of_copy(100);
    let mut number = 2;
    for round in 0..6 {
        let held: Vec<Target> = grants.iter().map(|grant| grant.target).collect();
        assert_eq!(held, [Target::Shard(0), Target::Shard(1)], "round {round}");
        let news = grants.iter().map(|grant| fact(*grant, full())).collect();
        desk.report(1, facts(number, news));
        number += 2;
        assert!(desk.granted(1).is_empty(), "begun in round {round}");
        desk.pass(2);
        let waits = desk.says("Reconciling");
        assert_eq!((waits.status.as_str(), waits.reason.as_str()), ("True", "OutputFull"));
        assert!(waits.message.contains("make room"), "{}", waits.message);
        let waiting = desk.status().shards.as_ref().unwrap().waiting;
        assert_eq!(waiting, 2, "holes are what is in flight");
        grants = desk.next_granted(number);
    }
    let sample = desk.status().failures.iter().find(|sample| sample.reason == "OutputFull").unwrap();
    assert_eq!((sample.class.as_str(), sample.count), ("Store", 12));
    assert!(desk.coordinator.shards().failed().is_empty());
    assert_eq!(desk.coordinator.shards().history(0), Some(crate::history::History::default()));
    assert_eq!(desk.says("Reconciling").reason, "OutputFull", "as long as nothing shows that there is room");

    let mut next = desk.successor(&copying());
    next.tick();
    assert_eq!(next.says("Reconciling").reason, "OutputFull", "a take-over changes nothing");

    desk.report(1, facts(number, vec![fact(grants[0], published())]));
    desk.pass(2);
    assert_eq!(desk.says("Reconciling").reason, "Running");
    assert_eq!(desk.granted(1).len(), 1, "it goes on");
}

#[test]
fn a_plan_that_finds_no_room_is_tried_again() {
    let mut desk = Desk::new(&copying());
    desk.tick();
    desk.handle(Event::PodsSeen(vec![pod("pod-a")]));
    desk.hello(1, "pod-a", 1, vec![]);
    let mut grants = desk.wants(1);
    for number in 1..5 {
        assert_eq!(grants.len(), 1);
        desk.report(1, facts(number, vec![fact(grants[0], full())]));
        desk.pass(2);
        assert_eq!(desk.says("Reconciling").reason, "OutputFull");
        grants = desk.next_granted(number + 1);
    }
    assert_eq!(desk.says("Failed").status, "False");
}

/// `WorkersAvailable`, as soon as that much time has passed.
fn says_of(trouble: &[(&str, &str)], seconds: u64) -> Condition {
    let mut desk = Desk::new(&seen());
    desk.tick();
    let pods = trouble.iter().enumerate().map(|(number, (reason, message))| Pod {
        trouble: Some(((*reason).into(), (*message).into())),
        ..pod(&format!("job-{number}"))
    });
    desk.handle(Event::PodsSeen(pods.collect()));
    desk.pass(seconds);
    desk.says("WorkersAvailable")
}

#[test]
fn why_no_worker_runs_is_said_in_the_clusters_words_with_a_remedy() {
    let says = says_of(&[("Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.")], 2);
    assert_eq!((says.status.as_str(), says.reason.as_str()), ("False", "Unschedulable"));
    assert_eq!(
        says.message,
        "0 of 2 workers run: 0/2 nodes are available: 2 Insufficient cpu. Lower `spec.workers.resources`, correct \
         `nodeSelector`, `affinity` and `tolerations` there, or add nodes."
    );
    let says = says_of(&[("ContainerCreating", ""), ("ErrImagePull", "no such host")], 30);
    assert_eq!(says.reason, "ImagePull");
}

#[test]
fn a_pod_that_starts_for_long_lacks_something() {
    for reason in ["ContainerCreating", "PodInitializing"] {
        assert_eq!(says_of(&[(reason, "")], 19).reason, "Starting");
    }
    let says = says_of(&[("ContainerCreating", "")], 22);
    assert_eq!((says.status.as_str(), says.reason.as_str()), ("False", "VolumeNotReady"));
    assert!(says.message.contains("kubectl describe pod job-0 --namespace ns"), "{}", says.message);
}

#[test]
fn a_refused_pod_is_the_reason_until_all_pods_are_there() {
    let mut desk = Desk::new(&seen());
    desk.tick();
    desk.handle(Event::PodsSeen(vec![]));
    let wanted = desk.coordinator.wanted_pods(desk.now());
    let message = "pods \"job-x\" is forbidden: exceeded quota: compute, requested: requests.cpu=4, limited: 64";
    desk.handle(Event::PodRefused("QuotaExceeded".into(), message.into()));
    desk.pass(2);
    let says = desk.says("WorkersAvailable");
    assert_eq!((says.status.as_str(), says.reason.as_str()), ("False", "QuotaExceeded"));
    assert_eq!(
        says.message,
        format!(
            "0 of 2 workers run: {message}. Lower `spec.workers.resources` or `spec.parallelism`, or ask for quota. \
             Trying again every 30 s."
        )
    );
    let waits = desk.says("Reconciling");
    assert_eq!((waits.reason.as_str(), &waits.message), ("WaitingForWorker", &says.message));
    desk.handle(Event::PodsSeen(wanted.create.iter().map(|name| pod(name)).collect()));
    desk.pass(2);
    assert_eq!(desk.says("WorkersAvailable").reason, "Starting");
    for (session, name) in wanted.create.iter().enumerate() {
        desk.hello(session as u64, name, 1, vec![]);
        desk.pass(2);
        let says = desk.says("WorkersAvailable");
        let reason = if session == 0 { "SomeReady" } else { "AllReady" };
        assert_eq!((says.status.as_str(), says.reason.as_str()), ("True", reason));
    }
    assert_eq!(desk.says("WorkersAvailable").message, "2 of 2 workers are ready");

    let next = &mut desk.successor(&seen());
    next.tick();
    assert_eq!(next.says("WorkersAvailable").reason, "AllReady", "a take-over changes nothing");
}

#[test]
fn a_pod_that_cannot_run_makes_way_for_one_of_the_corrected_spec() {
    let mut seen = seen();
    let old = Some(workers_digest(&seen.spec));
    let mut desk = Desk::new(&seen);
    desk.tick();
    let of = |uid: &str, trouble: Option<&str>| Pod {
        trouble: trouble.map(|reason| (reason.into(), "as the cluster says".into())),
        made_of: old.clone(),
        ..pod(uid)
    };
    desk.handle(Event::PodsSeen(vec![of("pending", Some("Unschedulable")), of("works", None)]));
    desk.hello(1, "works", 1, vec![]);
    desk.pass(30);
    assert_eq!(
        desk.coordinator.wanted_pods(desk.now()),
        WantedPods { run: 1, ..WantedPods::default() },
        "nothing was changed"
    );
    desk.edit(&mut seen, |spec| spec.workers.node_selector = [("disk".into(), "fast".into())].into());
    let wanted = desk.coordinator.wanted_pods(desk.now());
    assert_eq!((wanted.create.len(), &wanted.delete[..]), (1, &[("pending".to_owned(), "pending".to_owned())][..]));
    // One that is only about to start is given its time.
    desk.handle(Event::PodsSeen(vec![of("starts", Some("ContainerCreating")), of("works", None)]));
    assert!(desk.coordinator.wanted_pods(desk.now()).delete.is_empty());
    desk.pass(21);
    assert_eq!(desk.coordinator.wanted_pods(desk.now()).delete.len(), 1);
}

#[test]
fn a_job_without_parallelism_says_so() {
    let mut seen = seen();
    seen.spec.parallelism = 0;
    let mut desk = Desk::new(&seen);
    desk.handle(Event::PodsSeen(vec![]));
    desk.pass(3);
    assert_eq!(desk.says("Reconciling").reason, "NoParallelism");
    assert_eq!(desk.says("WorkersAvailable").reason, "AsNeeded");
    assert_eq!(desk.coordinator.wanted_pods(desk.now()), WantedPods { run: 1, ..WantedPods::default() });
    desk.edit(&mut seen, |spec| spec.parallelism = 2);
    assert_eq!(desk.coordinator.wanted_pods(desk.now()).create.len(), 2);
}

/// One shard is done each second; the others have 1 MiB each as well.
fn one_a_second(desk: &mut Desk, mut grants: Vec<Grant>, seconds: u64, mut number: u64) -> u64 {
    for _ in 0..seconds {
        let result = News::Published(Published { bytes: 1 << 20, crc32c: 0, found: false });
        let done = grants.remove(0);
        desk.report(1, Report { beat: true, held: held(&grants), ..facts(number, vec![fact(done, result)]) });
        number += 1;
        desk.pass(1);
        grants.extend(desk.granted(1));
    }
    number
}

fn held(grants: &[Grant]) -> Vec<Held> {
    grants.iter().map(|grant| Held { target: grant.target, epoch: grant.epoch, position: 0 }).collect()
}

#[test]
fn status_says_when_the_job_will_be_complete_and_writes_nothing_for_that() {
    let (mut desk, grants) = Desk::of_copy(200);
    let number = one_a_second(&mut desk, grants, 20, 2);
    let status = desk.status().clone();
    let throughput = status.throughput.clone().unwrap();
    assert!((55..=65).contains(&throughput.shards_per_minute), "{throughput:?}");
    assert!((960_000..=1_150_000).contains(&throughput.bytes_per_second), "{throughput:?}");
    let complete = status.estimated_completion_time.unwrap().0.as_second();
    assert!(complete.abs_diff(desk.now().unix + 180) <= 20, "{}", complete - desk.now().unix);
    assert!(status.display.unwrap().eta.ends_with('Z'));

    let writes = desk.stored.len();
    for _ in 0..8 {
        desk.report(1, Report { beat: true, capacity: 2, first_number: number, ..Report::default() });
        desk.coordinator.writer.touch();
        desk.pass(1);
    }
    assert_eq!(desk.stored.len(), writes, "written though nothing but the estimate changed");

    let next = &mut desk.successor(&copying());
    next.tick();
    let said = next.status().estimated_completion_time.as_ref().map(|time| time.0.as_second());
    assert_eq!(said, Some(complete), "what was said stands until more is known");
}

#[test]
fn a_job_that_rests_or_has_ended_expects_nothing() {
    let (mut desk, grants) = Desk::of_copy(200);
    one_a_second(&mut desk, grants, 20, 2);
    assert!(desk.status().throughput.is_some());
    desk.edit(&mut copying(), |spec| spec.suspend = true);
    desk.pass(2);
    let status = desk.status();
    assert_eq!((&status.throughput, &status.estimated_completion_time), (&None, &None));
    assert_eq!(status.display.as_ref().unwrap().eta, "");
}

#[test]
fn what_is_frozen_may_be_corrected_until_there_is_a_plan_and_not_after() {
    let elsewhere = |spec: &mut hyperflow_api::ShardJobSpec| {
        spec.output.as_mut().unwrap().path = "other-{index}".into();
    };
    let mut seen = copying();
    let mut early = Desk::new(&seen);
    early.tick();
    early.edit(&mut seen, elsewhere);
    early.pass(3);
    assert_eq!(early.says("Failed").status, "False");
    let (frozen, corrected) = (&early.status().recovery.as_ref().unwrap().frozen, Job::check(&seen.spec));
    assert_eq!(*frozen, corrected.unwrap().frozen);

    let (mut planned, _) = Desk::of_copy(4);
    planned.edit(&mut copying(), elsewhere);
    planned.pass(35);
    let failed = planned.says("Failed");
    assert_eq!((failed.status.as_str(), failed.reason.as_str()), ("True", "SpecChanged"));
    assert!(failed.message.contains("create another ShardJob"), "{}", failed.message);
}

#[test]
fn what_is_waited_for_once_is_written_at_once_and_nothing_else_is() {
    let mut desk = Desk::new(&copying());
    desk.tick();
    desk.handle(Event::PodsSeen(vec![pod("pod-a"), pod("pod-b")]));
    desk.hello(1, "pod-a", 1, vec![]);
    let plan = desk.wants(1);
    desk.millis += 100;
    let planned =
        Planned { shards: 2, files: 1, bytes: 2 << 20, digest: "blake3:00".into(), url: "file:///plan".into() };
    desk.report(1, facts(1, vec![fact(plan[0], News::Planned(planned))]));
    desk.tick();
    desk.handle(Event::Flush);
    let grants = desk.granted(1);
    assert_eq!(grants.len(), 2, "shards wait for the plan to be stored, and it waited for its second");

    desk.millis += 100;
    desk.report(1, facts(2, vec![fact(grants[0], published())]));
    assert!(desk.storing.is_none(), "a result is not waited for");
    desk.millis += 100;
    desk.report(1, facts(3, vec![fact(grants[1], published())]));
    let sweep = desk.granted(1);
    desk.report(1, facts(4, vec![fact(sweep[0], News::Swept(None))]));
    let refused = desk.storing.take().expect("the end is written at once");
    assert!(desk.status().completion_time.is_some());
    assert_eq!(desk.coordinator.next_wake(desk.now()), desk.millis + 1000, "nothing is written meanwhile");

    desk.handle(Event::StatusRefused(refused));
    desk.handle(Event::Flush);
    assert!(desk.storing.is_none() && desk.coordinator.next_wake(desk.now()) > desk.millis, "a refused one waits");
    desk.pass(1);
    assert_eq!(desk.stored.iter().filter(|status| status.completion_time.is_some()).count(), 2, "and comes again");
}
