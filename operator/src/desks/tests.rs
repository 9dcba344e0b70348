//! A desk that ends badly harms no other.

use kube::Config;

use super::*;
use crate::announce;

struct Room {
    desks: Arc<Desks>,
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
    let metrics = Metrics::default();
    let office = Office {
        client,
        limits: Limits::default(),
        announcer,
        wake,
        leading,
        health: Arc::default(),
        metrics: metrics.clone(),
    };
    Room { desks: Desks::new(office), metrics, woken, _lead: lead }
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
