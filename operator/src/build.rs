//! What a job's objects look like. Pure: from the resource and the settings, nothing else.
//!
//! Pods meet Pod Security `restricted`, whatever the user writes: user fields are an allow-list, placed one by one.

mod blocks;
mod fixed;

use std::collections::BTreeMap;

use hyperflow_api::{
    JOB_NAME_LABEL, JOB_UID_LABEL, ShardJob, ShardJobSpec, WORKERS_LABEL,
    exec::{Exec, PullPolicy},
    ids::JobUid,
    source::{ConfigMapKeyRef, Source},
    workers::{Resources, Volume as UserVolume, VolumeMount as UserMount, Workers},
};
use hyperflow_core::coordinator::{made_of, workers_digest};
use k8s_openapi::{
    api::core::v1::{
        ConfigMap, Container, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector, Pod, PodSpec,
        ResourceRequirements, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use kube::Resource;

use self::fixed::{CA_FILE, SCRATCH, SESSION};
use crate::settings::Settings;

/// What is needed of a resource to build its objects.
pub struct Owner<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.uid`.
    pub uid: &'a JobUid,
    /// `spec`.
    pub spec: &'a ShardJobSpec,
}

impl<'a> Owner<'a> {
    /// The program, if it is one of the user's in the user's image.
    fn exec(&self) -> Option<&'a Exec> {
        self.spec.task.exec.as_ref()
    }
}

/// The key of a ConfigMap that lists a job's input, if one does.
fn manifest(source: &Source) -> Option<&ConfigMapKeyRef> {
    let files = source.files.as_ref().and_then(|files| files.manifest.as_ref());
    let items = source.items.as_ref().and_then(|items| items.manifest.as_ref());
    files.or(items)?.config_map_key_ref.as_ref()
}

/// Name of the ConfigMap with the authority's certificate.
#[must_use]
pub fn ca_name(job: &str) -> String {
    format!("{job}-hyperflow-ca")
}

/// The ConfigMap with the authority's certificate.
#[must_use]
pub fn ca_config_map(owner: &Owner<'_>, certificate: &str) -> ConfigMap {
    // Not the controller: after a job of the same name was deleted its reference may still be there for a moment, and an
    // object has one controller at most.
    let reference = OwnerReference { controller: None, block_owner_deletion: None, ..owner_reference(owner) };
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(ca_name(owner.name)),
            namespace: Some(owner.namespace.into()),
            labels: Some(labels(owner)),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        data: Some([(CA_FILE.into(), certificate.into())].into()),
        ..ConfigMap::default()
    }
}

/// A worker pod, for a run of the job.
#[must_use]
pub fn pod(owner: &Owner<'_>, name: &str, run: u32, settings: &Settings) -> Pod {
    let metadata = owner.spec.workers.metadata.clone().unwrap_or_default();
    let mut all_labels = metadata.labels;
    // Ours come last: they must not be changed by the user's.
    all_labels.extend(labels(owner));
    all_labels.insert(WORKERS_LABEL.into(), made_of(&workers_digest(owner.spec), run));
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(owner.namespace.into()),
            labels: Some(all_labels),
            annotations: Some(metadata.annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec(owner, settings)),
        status: None,
    }
}

fn pod_spec(owner: &Owner<'_>, settings: &Settings) -> PodSpec {
    // Taken apart whole, so that a new field is not forgotten.
    let Workers {
        slots,
        metadata: _,
        bytes_per_second: _,
        resources: wanted,
        scratch: _,
        volumes,
        volume_mounts,
        service_account_name,
        security_context,
        image_pull_secrets,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
        runtime_class_name,
        scheduler_name,
        termination_grace_period_seconds,
    } = owner.spec.workers.clone();
    let exec = owner.exec();
    let pull_secrets = image_pull_secrets.into_iter().map(|secret| LocalObjectReference { name: secret.name });
    let (volumes, mounts) = (volumes.into_iter().map(user_volume), volume_mounts.into_iter().map(user_mount));
    let container = Container {
        name: "worker".into(),
        image: Some(exec.map_or(&settings.worker_image, |exec| &exec.image).clone()),
        image_pull_policy: match exec {
            Some(exec) => exec.image_pull_policy.and_then(PullPolicy::name).map(Into::into),
            None => Some(settings.worker_image_pull_policy.clone()),
        },
        // The image's ENTRYPOINT is not used: what it would start is started by the worker.
        command: exec.map(|_| vec![fixed::INSTALLED.into()]),
        env: Some(environment(owner, slots, settings)),
        env_from: exec.map(|exec| exec.env_from.clone()).filter(|sources| !sources.is_empty()),
        ports: Some([fixed::http_port(settings)].into_iter().chain(blocks::port(owner)).collect()),
        readiness_probe: Some(fixed::probe("/readyz")),
        liveness_probe: Some(fixed::probe("/healthz")),
        resources: Some(resources(&wanted)),
        security_context: Some(fixed::restricted_container(exec.is_none())),
        volume_mounts: Some(mounts.chain(fixed::mounts(owner)).chain(blocks::mounted(owner)).collect()),
        ..Container::default()
    };
    PodSpec {
        restart_policy: Some("Always".into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        init_containers: exec.map(|_| vec![fixed::installer(settings, resources(&wanted))]),
        containers: vec![container],
        volumes: Some(volumes.chain(fixed::volumes(owner)).chain(blocks::volume(owner, settings)).collect()),
        security_context: Some(fixed::restricted_pod(security_context)),
        service_account_name,
        image_pull_secrets: Some(pull_secrets.collect::<Vec<_>>()).filter(|secrets| !secrets.is_empty()),
        node_selector: Some(node_selector).filter(|selector| !selector.is_empty()),
        tolerations: Some(fixed::tolerate(tolerations, owner.spec.blocks.is_some())),
        affinity,
        topology_spread_constraints: Some(fixed::spread(topology_spread_constraints, owner.uid)),
        priority_class_name,
        runtime_class_name,
        scheduler_name,
        termination_grace_period_seconds: Some(termination_grace_period_seconds),
        ..PodSpec::default()
    }
}

fn owner_reference(owner: &Owner<'_>) -> OwnerReference {
    OwnerReference {
        api_version: ShardJob::api_version(&()).into_owned(),
        kind: ShardJob::kind(&()).into_owned(),
        name: owner.name.into(),
        uid: owner.uid.0.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn labels(owner: &Owner<'_>) -> BTreeMap<String, String> {
    let labels = [
        (JOB_UID_LABEL, owner.uid.0.as_str()),
        (JOB_NAME_LABEL, owner.name),
        ("app.kubernetes.io/name", "hyperflow-worker"),
        ("app.kubernetes.io/managed-by", "hyperflow"),
        ("app.kubernetes.io/component", "worker"),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn environment(owner: &Owner<'_>, slots: i32, settings: &Settings) -> Vec<EnvVar> {
    let mut ours = vec![
        value("HYPERFLOW_OPERATOR", settings.sessions_endpoint()),
        value("HYPERFLOW_TLS_NAME", settings.tls_name()),
        value("HYPERFLOW_CA_FILE", format!("{SESSION}/{CA_FILE}")),
        value("HYPERFLOW_TOKEN_FILE", format!("{SESSION}/token")),
        value("HYPERFLOW_JOB_UID", owner.uid.0.clone()),
        field("HYPERFLOW_POD_UID", "metadata.uid"),
        field("HYPERFLOW_NODE", "spec.nodeName"),
        value("HYPERFLOW_SLOTS", slots.to_string()),
        value("HYPERFLOW_HTTP", format!("0.0.0.0:{}", settings.worker_http_port)),
        value("TMPDIR", SCRATCH.into()),
    ];
    ours.extend(blocks::environment(owner, settings));
    let Some(exec) = owner.exec() else { return ours };
    // A program may need its time to write a checkpoint; a task of ours that does not stop at once never will.
    let grace = owner.spec.workers.termination_grace_period_seconds.to_string();
    let ours = ours.into_iter().chain([value("HYPERFLOW_GRACE_SECONDS", grace)]);
    // The program's come first, and none of them is called as one of ours.
    exec.env.iter().cloned().chain(ours).collect()
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), value_from: None }
}

/// A field of the pod itself.
fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { api_version: None, field_path: path.into() });
    let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
    EnvVar { name: name.into(), value: None, value_from }
}

fn resources(wanted: &Resources) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, hyperflow_api::quantity::Quantity>| {
        let amounts: BTreeMap<_, _> =
            amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect();
        Some(amounts).filter(|amounts| !amounts.is_empty())
    };
    ResourceRequirements {
        limits: amounts(&wanted.limits),
        requests: amounts(&wanted.requests),
        ..ResourceRequirements::default()
    }
}

fn user_mount(mount: UserMount) -> VolumeMount {
    let UserMount { name, mount_path, sub_path, read_only } = mount;
    VolumeMount { name, mount_path, sub_path, read_only, ..VolumeMount::default() }
}

fn user_volume(volume: UserVolume) -> Volume {
    let UserVolume { name, config_map, secret, persistent_volume_claim, empty_dir, ephemeral, projected, csi } = volume;
    Volume {
        name,
        config_map,
        secret,
        persistent_volume_claim,
        empty_dir,
        ephemeral,
        projected,
        csi,
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests;
