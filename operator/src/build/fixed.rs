//! What is so in every worker pod: its proof of identity, Pod Security `restricted`, and what holds where the user says
//! nothing.

use hyperflow_api::{JOB_UID_LABEL, ids::JobUid, source::ConfigMapKeyRef, workers::SecurityContext as Account};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
        HTTPGetAction, KeyToPath, PodSecurityContext, Probe, ProjectedVolumeSource, ResourceRequirements,
        SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Toleration, TopologySpreadConstraint, Volume,
        VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Owner, ca_name, manifest};
use crate::{identity, settings::Settings};

/// Where a worker finds its token and the certificate of the operator's authority.
pub const SESSION: &str = "/hyperflow/session";
/// The volume with both.
const SESSION_VOLUME: &str = "hyperflow-session";
/// Where a worker may write what it needs for a while: plans before they are stored, lists while they are sorted.
pub const SCRATCH: &str = "/hyperflow/scratch";
/// Where the worker is in a container of the user's image.
pub const INSTALLED: &str = "/hyperflow/bin/hyperflow-worker";
const INSTALLED_IN: &str = "/hyperflow/bin";
const INSTALLED_VOLUME: &str = "hyperflow-bin";
const SCRATCH_VOLUME: &str = "hyperflow-scratch";
/// Where the list of the input is mounted, if it is a key of a ConfigMap; the worker looks for it there.
const MANIFEST: &str = "/hyperflow/manifest";
const MANIFEST_VOLUME: &str = "hyperflow-manifest";
const MANIFEST_FILE: &str = "list";
/// Name of the certificate, in the ConfigMap and in the volume.
pub const CA_FILE: &str = "ca.crt";
/// Name of the port with probes and metrics.
const HTTP_PORT: &str = "http";
/// How long a token is valid; the kubelet renews it.
const TOKEN_SECONDS: i64 = 600;
/// A pod on a node that is gone is given up after so long; Kubernetes' own default is five minutes.
const GONE_NODE_SECONDS: i64 = 10;

/// The port with probes and metrics.
pub fn http_port(settings: &Settings) -> ContainerPort {
    ContainerPort {
        name: Some(HTTP_PORT.into()),
        container_port: settings.worker_http_port.into(),
        ..ContainerPort::default()
    }
}

/// A probe of the worker.
pub fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(HTTP_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(10),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

/// Volumes of ours.
pub fn volumes(owner: &Owner<'_>) -> Vec<Volume> {
    let own = Some(scratch_volume(owner)).filter(|_| users_scratch(owner).is_none());
    let installed = owner.exec().map(|_| Volume {
        name: INSTALLED_VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    let manifest = manifest(&owner.spec.source).map(manifest_volume);
    [Some(session_volume(owner)), own, installed, manifest].into_iter().flatten().collect()
}

/// The name of the user's volume that is written to instead of one of ours.
fn users_scratch<'a>(owner: &Owner<'a>) -> Option<&'a str> {
    owner.spec.workers.scratch.as_ref()?.volume_name.as_deref()
}

/// The kubelet ends a pod that writes more than the limit; the worker ends the attempt before that.
fn scratch_volume(owner: &Owner<'_>) -> Volume {
    let limit = owner.spec.workers.scratch.as_ref().and_then(|scratch| scratch.size_limit.as_ref());
    let size_limit = limit.map(|limit| Quantity(limit.to_string()));
    let empty_dir = Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() });
    Volume { name: SCRATCH_VOLUME.into(), empty_dir, ..Volume::default() }
}

/// Copies the worker to where the user's image can start it.
pub fn installer(settings: &Settings, resources: ResourceRequirements) -> Container {
    Container {
        name: "install".into(),
        image: Some(settings.worker_image.clone()),
        image_pull_policy: Some(settings.worker_image_pull_policy.clone()),
        args: Some(vec!["install".into(), INSTALLED.into()]),
        // What the worker may have; a quota asks for it in every container.
        resources: Some(resources),
        security_context: Some(restricted_container(true)),
        volume_mounts: Some(vec![mount(INSTALLED_VOLUME, INSTALLED_IN, false)]),
        ..Container::default()
    }
}

/// A whole volume at a path.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), read_only: Some(read_only), ..VolumeMount::default() }
}

/// Where they are mounted.
pub fn mounts(owner: &Owner<'_>) -> Vec<VolumeMount> {
    let manifest = manifest(&owner.spec.source).map(|_| mount(MANIFEST_VOLUME, MANIFEST, true));
    let installed = owner.exec().map(|_| mount(INSTALLED_VOLUME, INSTALLED_IN, true));
    let scratch = users_scratch(owner).unwrap_or(SCRATCH_VOLUME);
    let ours = [mount(SESSION_VOLUME, SESSION, true), mount(scratch, SCRATCH, false)];
    ours.into_iter().chain(installed).chain(manifest).collect()
}

/// Optional, so that a worker starts without it and can say what is missing.
fn manifest_volume(manifest: &ConfigMapKeyRef) -> Volume {
    let items = Some(vec![KeyToPath { key: manifest.key.clone(), mode: None, path: MANIFEST_FILE.into() }]);
    let source = ConfigMapVolumeSource { default_mode: None, items, name: manifest.name.clone(), optional: Some(true) };
    Volume { name: MANIFEST_VOLUME.into(), config_map: Some(source), ..Volume::default() }
}

/// The token by which the pod proves what it is, and the certificate by which it knows the operator.
fn session_volume(owner: &Owner<'_>) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(identity::audience(owner.uid)),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".into(),
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ca_name(owner.name),
            items: Some(vec![KeyToPath { key: CA_FILE.into(), mode: None, path: CA_FILE.into() }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: SESSION_VOLUME.into(),
        projected: Some(ProjectedVolumeSource { default_mode: None, sources: Some(vec![token, authority]) }),
        ..Volume::default()
    }
}

/// The pod as the user's account, restricted.
pub fn restricted_pod(account: Account) -> PodSecurityContext {
    let Account { run_as_user, run_as_group, fs_group, supplemental_groups } = account;
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(run_as_user),
        run_as_group,
        // Without it the kubelet walks through a whole volume whenever a pod starts.
        fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".into()),
        fs_group,
        supplemental_groups: Some(supplemental_groups).filter(|groups| !groups.is_empty()),
        seccomp_profile: Some(SeccompProfile { localhost_profile: None, type_: "RuntimeDefault".into() }),
        ..PodSecurityContext::default()
    }
}

/// A container, restricted. A program of the user's may write into its own image's file system, as in any pod.
pub fn restricted_container(read_only_root: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
        read_only_root_filesystem: Some(true).filter(|_| read_only_root),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

/// The user's tolerations, and for a node that is gone, if the user says nothing about it: a short one, or one without end
/// for a pod that keeps blocks. Deleting that one would lose what the node brings back when it returns (P30).
pub fn tolerate(mut tolerations: Vec<Toleration>, keeps_blocks: bool) -> Vec<Toleration> {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|it| it.key.as_deref().is_none_or(|it| it == key)) {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(GONE_NODE_SECONDS).filter(|_| !keeps_blocks),
                value: None,
            });
        }
    }
    tolerations
}

/// The user's spreading, or else over nodes where it is possible.
pub fn spread(constraints: Vec<TopologySpreadConstraint>, job: &JobUid) -> Vec<TopologySpreadConstraint> {
    if !constraints.is_empty() {
        return constraints;
    }
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector {
            match_expressions: None,
            match_labels: Some([(JOB_UID_LABEL.into(), job.0.clone())].into()),
        }),
        ..TopologySpreadConstraint::default()
    }]
}
