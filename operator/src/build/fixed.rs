//! What is so in every worker pod: its proof of identity, Pod Security `restricted`, and what holds where the user says
//! nothing.

use hyperflow_api::{JOB_UID_LABEL, ids::JobUid, source::ConfigMapKeyRef, workers::SecurityContext as Account};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, ConfigMapVolumeSource, EmptyDirVolumeSource, HTTPGetAction, KeyToPath,
        PodSecurityContext, Probe, ProjectedVolumeSource, SeccompProfile, SecurityContext,
        ServiceAccountTokenProjection, Toleration, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Owner, ca_name};
use crate::identity;

/// Where a worker finds its token and the certificate of the operator's authority.
pub const SESSION: &str = "/hyperflow/session";
/// The volume with both.
const SESSION_VOLUME: &str = "hyperflow-session";
/// Where a worker may write what it needs for a while: plans before they are stored, lists while they are sorted.
pub const SCRATCH: &str = "/hyperflow/scratch";
const SCRATCH_VOLUME: &str = "hyperflow-scratch";
/// Where the list of the input is mounted, if it is a key of a ConfigMap; the worker looks for it there.
const MANIFEST: &str = "/hyperflow/manifest";
const MANIFEST_VOLUME: &str = "hyperflow-manifest";
const MANIFEST_FILE: &str = "list";
/// Name of the certificate, in the ConfigMap and in the volume.
pub const CA_FILE: &str = "ca.crt";
/// Name of the port with probes and metrics.
pub const HTTP_PORT: &str = "http";
/// How long a token is valid; the kubelet renews it.
const TOKEN_SECONDS: i64 = 600;
/// A pod on a node that is gone is given up after so long; Kubernetes' own default is five minutes.
const GONE_NODE_SECONDS: i64 = 10;

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
    let empty_dir = Some(EmptyDirVolumeSource::default());
    let scratch = Volume { name: SCRATCH_VOLUME.into(), empty_dir, ..Volume::default() };
    [session_volume(owner), scratch].into_iter().chain(owner.manifest.map(manifest_volume)).collect()
}

/// Where they are mounted.
pub fn mounts(owner: &Owner<'_>) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let manifest = owner.manifest.map(|_| mount(MANIFEST_VOLUME, MANIFEST, true));
    let ours = [mount(SESSION_VOLUME, SESSION, true), mount(SCRATCH_VOLUME, SCRATCH, false)];
    ours.into_iter().chain(manifest).collect()
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

/// The container, restricted.
pub fn restricted_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

/// The user's tolerations, and short ones for a node that is gone, if the user says nothing about those.
pub fn tolerate(mut tolerations: Vec<Toleration>) -> Vec<Toleration> {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|it| it.key.as_deref().is_none_or(|it| it == key)) {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(GONE_NODE_SECONDS),
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
