//! What a pod has when its job keeps blocks: the volume that they are on, and the port where other workers read them.

use hyperflow_api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{ContainerPort, EmptyDirVolumeSource, EnvVar, Volume, VolumeMount};

use super::{Owner, field, fixed::mount, user_volume, value};
use crate::settings::{BLOCKS_PORT, Settings};

/// Where the volume is in a worker.
const DIRECTORY: &str = "/hyperflow/blocks";
/// The volume, if it is none of the user's.
const VOLUME: &str = "hyperflow-blocks";
const PORT_NAME: &str = "blocks";

/// The volume, if it is not one that the pod has anyway: the administrator's, or else one that goes with the pod.
pub fn volume(owner: &Owner<'_>, settings: &Settings) -> Option<Volume> {
    let blocks = owner.spec.blocks.as_ref()?;
    if blocks.volume_name.is_some() {
        return None;
    }
    // Without the limit of the spec, which the worker keeps to: the kubelet would end a pod for a header too many.
    let own = || Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() };
    let volume = settings.blocks_volume.as_ref().map_or_else(own, |volume| volume.source());
    Some(Volume { name: VOLUME.into(), ..volume })
}

/// Where it is mounted.
pub fn mounted(owner: &Owner<'_>) -> Option<VolumeMount> {
    let blocks = owner.spec.blocks.as_ref()?;
    Some(mount(blocks.volume_name.as_deref().unwrap_or(VOLUME), DIRECTORY, false))
}

/// Where other workers read.
pub fn port(owner: &Owner<'_>) -> Option<ContainerPort> {
    owner.spec.blocks.as_ref()?;
    Some(ContainerPort { name: Some(PORT_NAME.into()), container_port: BLOCKS_PORT.into(), ..ContainerPort::default() })
}

/// What the worker is told of it.
pub fn environment(owner: &Owner<'_>, settings: &Settings) -> Vec<EnvVar> {
    let Some(blocks) = &owner.spec.blocks else { return Vec::new() };
    let limit = blocks.size_limit.as_ref().map(Amount::bytes).and_then(Result::ok);
    let limit = limit.map(|bytes| value("HYPERFLOW_BLOCKS_LIMIT", bytes.to_string()));
    [
        value("HYPERFLOW_BLOCKS_DIR", DIRECTORY.into()),
        value("HYPERFLOW_BLOCKS_LISTEN", format!("0.0.0.0:{BLOCKS_PORT}")),
        field("HYPERFLOW_POD_IP", "status.podIP"),
        value("HYPERFLOW_BLOCKS_PERSISTENT", is_persistent(owner, settings).to_string()),
        value("HYPERFLOW_BLOCKS_RATE", settings.blocks_bytes_per_second.to_string()),
    ]
    .into_iter()
    .chain(limit)
    .collect()
}

/// Whether what is on the volume outlives the pod (P30).
fn is_persistent(owner: &Owner<'_>, settings: &Settings) -> bool {
    let name = owner.spec.blocks.as_ref().and_then(|blocks| blocks.volume_name.as_ref());
    let users = owner.spec.workers.volumes.iter().find(|volume| Some(&volume.name) == name);
    let volume = match users {
        Some(users) => user_volume(users.clone()),
        None => volume(owner, settings).unwrap_or_default(),
    };
    volume.persistent_volume_claim.is_some() || volume.csi.is_some() || volume.host_path.is_some()
}
