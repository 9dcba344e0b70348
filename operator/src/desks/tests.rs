//! A desk that ends badly harms no other.

use kube::Config;

use super::*;
use crate::announce;

struct Room {
    desks: Arc<Desks>,
    health: Arc<Health>,
    _nodes: watch::Sender<Nodes>,
    metrics: Metrics,
    woken: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    _lead: watch::Sender<bool>,
}

/// Desks beside an API server that is never asked.
fn room() -> Room {
    let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let (announcer, _herald) = announce::pair(client.clone(), "op-0".into());
    let (wake, woken) = mpsc::unbounded_channel();
    let (lead, leading) = watch::channel(true);
    let (nodes, metrics, health) = (watch::Sender::new(None), Metrics::default(), Arc::<Health>::default());
    let office = Office {
        client,
        limits: Limits::default(),
        announcer,
        wake,
        leading,
        nodes: nodes.subscribe(),
        health: Arc::clone(&health),
        metrics: metrics.clone(),
        grants: GrantKey::new(b"key").unwrap(),
    };
    Room { desks: Desks::new(office), health, _nodes: nodes, metrics, woken, _lead: lead }
}

fn uid(name: &str) -> JobUid {
    JobUid(format!("uid of {name}"))
}

fn enter(desks: &Desks, name: &str, failures: u32) -> Ticket {
    let job = ObjectRef::new(name).within("default");
    let handle = Handle::new("default".into(), mpsc::channel(1).0);
    desks.enter(uid(name), job, handle, watch::channel(()).0, failures)
}

fn rest(desks: &Desks, name: &str) -> Option<(Duration, u32)> {
    match desks.lock().get(&uid(name)) {
        Some(Entry::Resting { until, failures, .. }) => Some((*until - Instant::now(), *failures)),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_the_desk_rests_while_others_work() {
    let mut room = room();
    let _other = enter(&room.desks, "other", 0);
    for failures in 0..3 {
        let ticket = enter(&room.desks, "bad", failures);
        room.desks.clone().supervise(async { panic!("boom") }, ticket).await;
        let expected = (FIRST_PAUSE * 2_u32.pow(failures), failures + 1);
        assert_eq!(rest(&room.desks, "bad"), Some(expected), "the pause doubles");
    }
    assert_eq!(room.metrics.desk_panics.get(), 3);
    assert_eq!(room.woken.recv().await.unwrap().name, "bad", "the job gets another turn");
    assert!(room.desks.find(&uid("other")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_another_process_took_over_is_not_taken_back_at_once() {
    let room = room();
    let ticket = enter(&room.desks, "taken", 0);
    room.desks.clone().supervise(async { Ok(End::Superseded) }, ticket).await;
    assert!(rest(&room.desks, "taken").is_some());
    let ticket = enter(&room.desks, "sound", 9);
    let long = async {
        tokio::time::sleep(SOUND).await;
        Ok(End::Superseded)
    };
    room.desks.clone().supervise(long, ticket).await;
    assert_eq!(rest(&room.desks, "sound"), Some((FIRST_PAUSE, 1)), "what was long ago does not count");
}

#[tokio::test(start_paused = true)]
async fn a_term_that_workers_spoke_of_is_remembered_until_the_next_desk() {
    let room = room();
    let heard = |name: &str| match room.desks.lock().get(&uid(name)) {
        Some(Entry::Resting { heard, .. }) => Some(*heard),
        _ => None,
    };
    let ticket = enter(&room.desks, "restored", 0);
    room.desks.clone().supervise(async { Ok(End::Outranked(9)) }, ticket).await;
    assert_eq!((rest(&room.desks, "restored"), heard("restored")), (Some((FIRST_PAUSE, 1)), Some(9)));
    let ticket = enter(&room.desks, "taken", 0);
    room.desks.clone().supervise(async { Ok(End::Superseded) }, ticket).await;
    assert_eq!(heard("taken"), Some(0));
}

/// A job that needs no plan, and a coordinator for it.
fn job() -> (Seen, ShardJob, Coordinator) {
    let job: ShardJob = serde_json::from_value(serde_json::json!({
        "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob",
        "metadata": {"name": "copy", "namespace": "default", "uid": "uid of copy", "resourceVersion": "7"},
        "spec": {"source": {"numbers": {"count": 1}}, "task": {"noop": {}}}
    }))
    .unwrap();
    let seen = observe::job(&job).unwrap();
    let coordinator = Coordinator::take_over(clock::now(), &seen, 7, 0, Limits::default()).unwrap();
    (seen, job, coordinator)
}

#[tokio::test(start_paused = true)]
async fn a_desk_that_does_not_turn_is_seen_and_one_that_only_waits_is_sound() {
    let room = room();
    let (seen, job, coordinator) = job();
    let _desk = room.desks.start(seen, job, coordinator, 0);
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(room.health.stuck(), None, "it waits for an API server that is away");
    }
    // The clock goes on, and the desk gets no turn: all tasks are in this thread.
    let _advanced = tokio::time::advance(Duration::from_secs(90)).now_or_never();
    assert_eq!(room.health.stuck().as_deref(), Some("desk of default/copy"));
}

#[tokio::test]
async fn a_desk_that_is_over_or_dismissed_leaves_nothing() {
    let room = room();
    let over = enter(&room.desks, "over", 0);
    room.desks.clone().supervise(async { Ok(End::Over) }, over).await;
    let gone = enter(&room.desks, "gone", 0);
    room.desks.dismiss_named(Some("default"), "gone");
    room.desks.clone().supervise(async { Ok(End::Dismissed) }, gone).await;
    assert!(room.desks.lock().is_empty());
    room.desks.all_closed().await;
}

#[tokio::test]
async fn the_end_of_an_earlier_desk_does_not_touch_the_next_one() {
    let room = room();
    let first = enter(&room.desks, "job", 0);
    let _second = enter(&room.desks, "job", 0);
    room.desks.clone().supervise(async { Ok(End::Superseded) }, first).await;
    assert!(room.desks.find(&uid("job")).is_some());
}
