//! Names of results that belong to another job.

use hyperflow_api::message::Owner;

use super::*;

fn owner(uid: &str) -> Owner {
    Owner { uid: JobUid(uid.into()), namespace: "ns".into(), name: "old".into() }
}

fn planning() -> (Desk, Grant) {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in/x", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/", "existing": "Reuse"},
        "workers": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    });
    let mut desk = Desk::new(&Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() });
    desk.handle(Event::Flush);
    desk.store();
    desk.handle(Event::PodsSeen(vec![pod("pod-a")]));
    desk.hello(1, "pod-a", 1, vec![]);
    let grant = desk.wants(1)[0];
    desk.report(1, facts(1, vec![fact(grant, News::Claimed(owner("old-uid")))]));
    assert_eq!(desk.asked, [owner("old-uid")], "asked once, and nothing is granted meanwhile");
    assert!(desk.wants(1).is_empty() && desk.asked.len() == 1);
    (desk, grant)
}

fn seen_to_live(desk: &mut Desk, uid: &str, lives: Option<bool>) {
    desk.handle(Event::OwnerSeen { uid: JobUid(uid.into()), lives });
    desk.handle(Event::Flush);
}

#[test]
fn who_is_gone_is_named_to_the_next_planner() {
    let (mut desk, first) = planning();
    assert_eq!(first.heir_of, None);
    seen_to_live(&mut desk, "another", Some(false));
    assert!(desk.wants(1).is_empty(), "that was an answer to nothing");
    seen_to_live(&mut desk, "old-uid", Some(false));
    let granted: Vec<Grant> = desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect();
    assert_eq!(granted[0].heir_of, Some(crate::claim::digest(&JobUid("old-uid".into()))));
}

#[test]
fn a_living_owner_keeps_its_names() {
    let (mut desk, _) = planning();
    desk.millis += 2000;
    seen_to_live(&mut desk, "old-uid", Some(true));
    let status = desk.stored.last().unwrap();
    let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
    assert_eq!((failed.status.as_str(), failed.reason.as_str()), ("True", "OutputClaimed"));
    assert!(failed.message.contains("ShardJob 'old'"), "{}", failed.message);
}

#[test]
fn an_owner_that_cannot_be_found_out_about_is_asked_for_again() {
    let (mut desk, _) = planning();
    seen_to_live(&mut desk, "old-uid", None);
    assert!(desk.wants(1).is_empty());
    desk.millis += 6000;
    let again = desk.wants(1);
    assert_eq!((again[0].target, again[0].heir_of), (Target::Plan, None));
}
