//! Etcd is away for a quarter of a minute, so that the API server answers and can do nothing: the same holds as without
//! an API server.

use hyperflow_e2e::{Result, cluster::Place, control::Part, harness};

pub async fn keeps(place: &Place) -> Result {
    let steps = if harness::soak() { 12 } else { 3 };
    super::survives_api_outage::outage(place, Part::Etcd, steps).await
}
