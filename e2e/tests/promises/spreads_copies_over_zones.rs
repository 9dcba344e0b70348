//! Two nodes are in one zone and one is in another: of each block one copy is there, whatever rendezvous would have.

use std::time::Duration;

use hyperflow_e2e::{Result, cluster::Place, ensure, fault::finally, oracle};
use kube::ResourceExt;

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 24;
const REPLICAS: usize = 2;
const LIMIT: Duration = Duration::from_secs(60);
const ZONE: &str = "topology.kubernetes.io/zone";

pub async fn keeps(place: &Place) -> Result {
    let before = place.cluster.labels(ZONE).await?;
    let repair = || async {
        for (node, zone) in &before {
            place.cluster.label(node, ZONE, zone.as_deref()).await?;
        }
        Ok(())
    };
    let nodes: Vec<&String> = before.keys().collect();
    finally(spreads(place, &nodes), repair()).await
}

async fn spreads(place: &Place, nodes: &[&String]) -> Result {
    let [alone, together @ ..] = nodes else { return Err("a cluster without nodes".into()) };
    ensure(together.len() >= REPLICAS, || format!("{} nodes are too few", nodes.len()))?;
    place.cluster.label(alone, ZONE, Some("zone-b")).await?;
    for node in together {
        place.cluster.label(node, ZONE, Some("zone-a")).await?;
    }
    let input = place.write_input("input", SHARDS as usize * MIB, 91)?;
    let job = place.apply(gated("zones", u32::try_from(nodes.len())?, REPLICAS)).await?;
    let took = place.replicated(&job, SHARDS, REPLICAS, &[], LIMIT).await?;
    for pod in place.workers().await? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let (zone, wanted) = (pod.labels().get(ZONE), if node == **alone { "zone-b" } else { "zone-a" });
        ensure(zone.is_some_and(|zone| zone == wanted), || {
            format!("{} on {node} says {zone:?}, not {wanted}: does this cluster label pods?", pod.name_any())
        })?;
    }
    // Shards that were begun before the pod there had called have copies elsewhere first.
    let others: Vec<String> = together.iter().map(|node| (*node).clone()).collect();
    let took = took + place.replicated(&job, SHARDS, 1, &others, LIMIT).await?;
    println!("     {SHARDS} MiB in both zones {took:.1?} after apply");
    open_gate(place)?;
    job.complete(LIMIT).await?;
    oracle::check_copy(&input, &place.path("out"), SHARDS).map(drop)
}
