//! Watches the cluster's nodes: the core tells by them why workers are lost and where none can run.
//!
//! Nothing waits for this watch. Where nodes may not be read, or before they were, they are unknown.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use hyperflow_core::coordinator::Node as Seen;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::{
    Api, Client, ResourceExt,
    core::ObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    telemetry::chain,
    watching::{self, Pauses},
};

/// All nodes, by name; none while they are unknown. Shared by all desks.
pub type Nodes = Option<Arc<[Seen]>>;

/// What a node may be short of, in the order in which it is told.
const PRESSURES: [&str; 3] = ["MemoryPressure", "DiskPressure", "PIDPressure"];
/// The pause after nodes were refused to us: only an administrator ends that.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Watches for ever, and tells of each change that matters.
pub async fn follow(client: Client, nodes: watch::Sender<Nodes>) {
    let (store, writer) = reflector::store();
    let watched = watcher(Api::<Node>::all(client), watching::config()).backoff(Pauses::default());
    let watched = watched.modify(trim).reflect(writer);
    tell(store, watched, &nodes).await;
}

async fn tell(
    store: Store<Node>,
    watched: impl Stream<Item = Result<watcher::Event<Node>, watcher::Error>>,
    nodes: &watch::Sender<Nodes>,
) {
    let mut watched = pin!(watched);
    while let Some(event) = watched.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => publish(&store, nodes),
            Err(error) if watching::is_refusal(&error) => {
                info!(error = chain(&error), "nodes may not be read: workers are looked after without them");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error) => warn!(error = chain(&error), "the watch of nodes failed; it is tried again"),
        }
    }
}

fn publish(store: &Store<Node>, nodes: &watch::Sender<Nodes>) {
    let mut now: Vec<Seen> = store.state().iter().map(|node| seen(node)).collect();
    // The cache has no order; an equal cluster must look equal.
    now.sort_by(|a, b| a.name.cmp(&b.name));
    nodes.send_if_modified(|before| {
        let changed = before.as_deref() != Some(&*now);
        if changed {
            *before = Some(now.into());
        }
        changed
    });
}

/// Leaves of a node what is read here: it lists every image that it has.
fn trim(node: &mut Node) {
    node.metadata =
        ObjectMeta { name: node.metadata.name.take(), uid: node.metadata.uid.take(), ..ObjectMeta::default() };
    if let Some(spec) = node.spec.take() {
        node.spec = Some(NodeSpec { unschedulable: spec.unschedulable, ..NodeSpec::default() });
    }
    if let Some(status) = node.status.take() {
        node.status = Some(NodeStatus { conditions: status.conditions, ..NodeStatus::default() });
    }
}

fn seen(node: &Node) -> Seen {
    let is_true = |kind: &str| {
        let mut conditions = node.status.iter().flat_map(|status| &status.conditions).flatten();
        conditions.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    Seen {
        name: node.name_any(),
        ready: is_true("Ready"),
        cordoned: node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)),
        pressure: PRESSURES.into_iter().find(|kind| is_true(kind)).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::core::Status;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, ready: &str, change: impl Fn(&mut Value)) -> Node {
        let mut node = json!({
            "metadata": {"name": name, "uid": name, "labels": {"a": "b"}},
            "spec": {"podCIDR": "198.18.1.0/24"},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
                "images": [{"names": ["a"]}]
            }
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    fn of(name: &str, ready: bool) -> Seen {
        Seen { name: name.into(), ready, cordoned: false, pressure: None }
    }

    #[test]
    fn a_node_is_ready_only_when_it_says_so() {
        assert_eq!(seen(&node("a", "True", |_| {})), of("a", true));
        assert_eq!(seen(&node("a", "Unknown", |_| {})), of("a", false), "a node that is cut off");
        assert_eq!(seen(&node("a", "True", |node| node["status"] = json!({}))), of("a", false));
    }

    #[test]
    fn a_node_may_be_cordoned_and_short_of_something() {
        let cordoned = |node: &mut Value| node["spec"]["unschedulable"] = json!(true);
        assert_eq!(seen(&node("a", "True", cordoned)), Seen { cordoned: true, ..of("a", true) });
        let short = |node: &mut Value| {
            node["status"]["conditions"] = json!([
                {"type": "PIDPressure", "status": "True"}, {"type": "DiskPressure", "status": "True"},
                {"type": "MemoryPressure", "status": "Unknown"}, {"type": "Ready", "status": "True"}
            ]);
        };
        assert_eq!(seen(&node("a", "True", short)), Seen { pressure: Some("DiskPressure".into()), ..of("a", true) });
    }

    #[test]
    fn trimming_keeps_all_that_is_read() {
        let whole = node("a", "True", |node| node["spec"]["unschedulable"] = json!(true));
        let mut trimmed = whole.clone();
        trim(&mut trimmed);
        assert_eq!(seen(&trimmed), seen(&whole));
        assert!(trimmed.metadata.labels.is_none() && trimmed.status.unwrap().images.is_none());
    }

    /// How often the nodes changed, and what they are at the end.
    async fn told(events: Vec<Result<watcher::Event<Node>, watcher::Error>>) -> (usize, Nodes) {
        let (store, writer) = reflector::store();
        let nodes = watch::Sender::new(None);
        let mut hears = nodes.subscribe();
        let mut changes = 0;
        let events = stream::iter(events).reflect(writer).inspect(|_| {
            changes += usize::from(hears.has_changed().unwrap());
            hears.mark_unchanged();
        });
        tell(store, events, &nodes).await;
        let last = usize::from(hears.has_changed().unwrap());
        (changes + last, hears.borrow().clone())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_complete_list_is_told_and_only_changes_of_it() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let (a, b) = (|| node("a", "True", |_| {}), || node("b", "True", |_| {}));
        let (changes, nodes) = told(vec![Ok(Init), Ok(InitApply(b()))]).await;
        assert_eq!((changes, nodes), (0, None), "half a list says nothing of the rest");
        let whole = || vec![Ok(Init), Ok(InitApply(b())), Ok(InitApply(a())), Ok(InitDone)];
        let (changes, nodes) = told(whole()).await;
        assert_eq!((changes, nodes.as_deref()), (1, Some(&[of("a", true), of("b", true)][..])));
        let heartbeat = node("a", "True", |node| node["metadata"]["labels"] = json!({"c": "d"}));
        let more = vec![Ok(Apply(heartbeat)), Ok(Apply(node("b", "False", |_| {}))), Ok(Delete(a()))];
        let (changes, nodes) = told(whole().into_iter().chain(more).collect()).await;
        assert_eq!((changes, nodes.as_deref()), (3, Some(&[of("b", false)][..])), "a heartbeat is no change");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_tells_nothing_and_is_tried_again() {
        let answered = |code| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        let failures = [403, 500, 403].map(|code| Err(watcher::Error::InitialListFailed(answered(code))));
        let started = tokio::time::Instant::now();
        let (changes, nodes) = told(failures.into()).await;
        assert_eq!((changes, nodes), (0, None));
        assert_eq!(started.elapsed(), 2 * REFUSED_PAUSE, "who is refused does not ask all the time");
    }
}
