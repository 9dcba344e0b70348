//! What a worker pod looks like, field by field, as the API server would get it.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

fn settings() -> Settings {
    let args = ["hyperflow-operator", "--namespace", "system", "--pod-name", "op-0", "--worker-image", "w:1"];
    Settings::try_parse_from(args).unwrap()
}

fn spec(workers: Value) -> ShardJobSpec {
    let mut spec = json!({"source": {"numbers": {"count": 1}}, "task": {"noop": {}}});
    spec["workers"] = workers;
    serde_json::from_value(spec).unwrap()
}

fn built(workers: Value) -> Value {
    built_of(&spec(workers))
}

fn built_of(spec: &ShardJobSpec) -> Value {
    built_by(&settings(), spec)
}

fn built_by(settings: &Settings, spec: &ShardJobSpec) -> Value {
    let uid = JobUid("job-1".into());
    let owner = Owner { name: "copy", namespace: "team-a", uid: &uid, spec };
    serde_json::to_value(pod(&owner, "copy-w0", 1, settings)).unwrap()
}

fn with_blocks(blocks: Value, workers: Value) -> ShardJobSpec {
    ShardJobSpec { blocks: Some(serde_json::from_value(blocks).unwrap()), ..spec(workers) }
}

/// Of the container, without its `valueFrom`.
fn variable(pod: &Value, name: &str) -> Option<String> {
    let all = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    Some(all.iter().find(|it| it["name"] == name)?["value"].as_str()?.to_owned())
}

#[test]
fn a_pod_belongs_to_its_job() {
    let pod = built(json!({}));
    assert_eq!(pod["metadata"]["name"], "copy-w0");
    assert_eq!(
        pod["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "name": "copy", "uid": "job-1",
            "controller": true, "blockOwnerDeletion": true
        }])
    );
    assert_eq!(pod["metadata"]["labels"]["hyperflow.dev/shardjob-uid"], "job-1");
    assert_eq!(pod["metadata"]["labels"]["hyperflow.dev/shardjob-name"], "copy");
    assert!(crate::observe::belongs(&serde_json::from_value(pod).unwrap(), &JobUid("job-1".into())));
}

#[test]
fn a_pod_is_restricted_whoever_it_runs_as() {
    let pod = built(json!({"securityContext": {"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [7]}}));
    assert_eq!(
        pod["spec"]["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch",
            "supplementalGroups": [7], "seccompProfile": {"type": "RuntimeDefault"}
        })
    );
    assert_eq!(
        pod["spec"]["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true
        })
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
}

#[test]
fn a_worker_is_told_where_the_operator_is_and_who_it_is() {
    let pod = built(json!({"slots": 3}));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["env"],
        json!([
            {"name": "HYPERFLOW_OPERATOR", "value": "hyperflow-operator-workers.system.svc:7700"},
            {"name": "HYPERFLOW_TLS_NAME", "value": "hyperflow-operator.system.svc"},
            {"name": "HYPERFLOW_CA_FILE", "value": "/hyperflow/session/ca.crt"},
            {"name": "HYPERFLOW_TOKEN_FILE", "value": "/hyperflow/session/token"},
            {"name": "HYPERFLOW_JOB_UID", "value": "job-1"},
            {"name": "HYPERFLOW_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "HYPERFLOW_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "HYPERFLOW_SLOTS", "value": "3"},
            {"name": "HYPERFLOW_HTTP", "value": "0.0.0.0:8080"},
            {"name": "TMPDIR", "value": "/hyperflow/scratch"},
        ])
    );
    assert_eq!(container["image"], "w:1");
    assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "http"}));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": "http"}));
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "hyperflow-session", "projected": {"sources": [
            {"serviceAccountToken": {"audience": "hyperflow.dev/job-1", "expirationSeconds": 600, "path": "token"}},
            {"configMap": {"name": "copy-hyperflow-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]}}, {"name": "hyperflow-scratch", "emptyDir": {}}])
    );
}

#[test]
fn a_list_in_a_config_map_is_mounted_but_not_waited_for() {
    let source = json!({"items": {"manifest": {"configMapKeyRef": {"name": "regions", "key": "list.txt"}}}});
    let source: Source = serde_json::from_value(source).unwrap();
    let pod = built_of(&ShardJobSpec { source, ..spec(json!({})) });
    assert_eq!(
        pod["spec"]["volumes"][2],
        json!({"name": "hyperflow-manifest", "configMap": {
            "name": "regions", "items": [{"key": "list.txt", "path": "list"}], "optional": true
        }})
    );
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[2], json!({"name": "hyperflow-manifest", "mountPath": "/hyperflow/manifest", "readOnly": true}));
}

#[test]
fn a_program_runs_in_its_own_image_with_the_worker_copied_in() {
    let exec = json!({
        "image": "etl:3", "imagePullPolicy": "Never", "command": ["wc"], "input": "Stdin", "output": "None",
        "env": [{"name": "MODE", "value": "fast"}], "envFrom": [{"secretRef": {"name": "keys"}}]
    });
    let workers = json!({"resources": {"limits": {"memory": "1Gi"}}, "scratch": {"sizeLimit": "2Gi"}});
    let mut spec = spec(workers);
    spec.task = serde_json::from_value(json!({"exec": exec})).unwrap();
    let pod = &built_of(&spec)["spec"];
    assert_eq!(
        pod["initContainers"],
        json!([{
            "name": "install", "image": "w:1", "imagePullPolicy": "IfNotPresent",
            "args": ["install", "/hyperflow/bin/hyperflow-worker"], "resources": {"limits": {"memory": "1Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
                "runAsNonRoot": true
            },
            "volumeMounts": [{"name": "hyperflow-bin", "mountPath": "/hyperflow/bin", "readOnly": false}]
        }])
    );
    let container = &pod["containers"][0];
    assert_eq!((&container["image"], &container["imagePullPolicy"]), (&json!("etl:3"), &json!("Never")));
    assert_eq!(container["command"], json!(["/hyperflow/bin/hyperflow-worker"]));
    assert_eq!(container["env"][0], json!({"name": "MODE", "value": "fast"}));
    assert_eq!(container["env"][11], json!({"name": "HYPERFLOW_GRACE_SECONDS", "value": "30"}));
    assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "keys"}}]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], Value::Null);
    assert_eq!(
        container["volumeMounts"][2],
        json!({"name": "hyperflow-bin", "mountPath": "/hyperflow/bin", "readOnly": true})
    );
    assert_eq!(pod["volumes"][1], json!({"name": "hyperflow-scratch", "emptyDir": {"sizeLimit": "2Gi"}}));
}

#[test]
fn scratch_may_be_a_volume_of_the_users() {
    let pod = built(json!({"volumes": [{"name": "fast", "emptyDir": {}}], "scratch": {"volumeName": "fast"}}));
    let volumes: Vec<&Value> = pod["spec"]["volumes"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(volumes, ["fast", "hyperflow-session"]);
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[1], json!({"name": "fast", "mountPath": "/hyperflow/scratch", "readOnly": false}));
}

#[test]
fn what_the_user_says_of_pods_is_there() {
    let pod = built(json!({
        "metadata": {"labels": {"team": "a", "app.kubernetes.io/name": "mine"}, "annotations": {"note": "b"}},
        "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "500m"}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "x", "readOnly": true}],
        "serviceAccountName": "reader",
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"disk": "fast"},
        "priorityClassName": "low", "runtimeClassName": "gvisor", "schedulerName": "mine",
        "terminationGracePeriodSeconds": 7
    }));
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "hyperflow-worker", "ours are not changed");
    assert_eq!(pod["metadata"]["annotations"], json!({"note": "b"}));
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["resources"], json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "500m"}}));
    assert_eq!(
        container["volumeMounts"][0],
        json!({"name": "data", "mountPath": "/data", "subPath": "x", "readOnly": true})
    );
    assert_eq!(spec["volumes"][0], json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}}));
    assert_eq!(spec["serviceAccountName"], "reader");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(spec["nodeSelector"], json!({"disk": "fast"}));
    assert_eq!(spec["priorityClassName"], "low");
    assert_eq!(spec["runtimeClassName"], "gvisor");
    assert_eq!(spec["schedulerName"], "mine");
    assert_eq!(spec["terminationGracePeriodSeconds"], 7);
}

#[test]
fn a_lost_node_is_given_up_soon_unless_the_user_says_otherwise() {
    let seconds = |pod: &Value| -> Vec<Value> {
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap().iter();
        tolerations.map(|toleration| toleration["tolerationSeconds"].clone()).collect()
    };
    assert_eq!(seconds(&built(json!({}))), [json!(10), json!(10)]);
    let own = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 99});
    assert_eq!(seconds(&built(json!({"tolerations": [own]}))), [json!(99), json!(10)]);
    assert_eq!(seconds(&built(json!({"tolerations": [{"operator": "Exists"}]}))), [Value::Null]);
}

#[test]
fn workers_spread_over_nodes_unless_the_user_says_otherwise() {
    let spread = &built(json!({}))["spec"]["topologySpreadConstraints"];
    assert_eq!(
        *spread,
        json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"hyperflow.dev/shardjob-uid": "job-1"}}
        }])
    );
    let zone = json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    assert_eq!(built(json!({"topologySpreadConstraints": zone}))["spec"]["topologySpreadConstraints"], zone);
}

#[test]
fn the_authority_goes_with_the_job_but_is_not_controlled_by_it() {
    let (spec, uid) = (spec(json!({})), JobUid("job-1".into()));
    let owner = Owner { name: "copy", namespace: "team-a", uid: &uid, spec: &spec };
    let map = serde_json::to_value(ca_config_map(&owner, "PEM")).unwrap();
    assert_eq!(map["metadata"]["name"], "copy-hyperflow-ca");
    assert_eq!(map["data"], json!({"ca.crt": "PEM"}));
    assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], "job-1");
    assert_eq!(map["metadata"]["ownerReferences"][0]["controller"], Value::Null);
}

#[test]
fn a_pod_says_what_it_was_made_of() {
    let digest = |workers: Value| built(workers)["metadata"]["labels"]["hyperflow.dev/workers-digest"].clone();
    assert_eq!(digest(json!({"slots": 2})), digest(json!({"slots": 2})));
    assert_ne!(digest(json!({"slots": 2})), digest(json!({"slots": 3})));
    let forged = digest(json!({"metadata": {"labels": {"hyperflow.dev/workers-digest": "mine"}}}));
    assert_eq!(forged.as_str().map(str::len), Some(16));
}

/// The longest name that a ShardJob may have: `metadata.name must be no more than 52 characters`.
#[test]
fn a_job_with_the_longest_name_has_objects_that_the_api_server_takes() {
    let (spec, uid) = (spec(json!({})), JobUid("5b1e0c44-1f0e-4a5e-9b34-2f64d2a4f0f1".into()));
    let name = "x".repeat(52);
    let owner = Owner { name: &name, namespace: "team-a", uid: &uid, spec: &spec };
    // A pod's name is the job's, a hyphen and eight letters; it is its host name too, which has 63 at most.
    let pod = serde_json::to_value(pod(&owner, &format!("{name}-abcdefgh"), 1, &settings())).unwrap();
    assert!(pod["metadata"]["name"].as_str().unwrap().len() <= 63);
    for (key, value) in pod["metadata"]["labels"].as_object().unwrap() {
        assert!(value.as_str().unwrap().len() <= 63, "label {key} is too long");
    }
    assert!(ca_config_map(&owner, "PEM").metadata.name.unwrap().len() <= 253);
}

#[test]
fn a_job_made_anew_under_the_same_name_has_objects_of_its_own() {
    let spec = spec(json!({}));
    let [old, new] = ["old", "new"].map(|uid| JobUid(uid.into()));
    let of = |uid| Owner { name: "copy", namespace: "team-a", uid, spec: &spec };
    let [first, second] = [&old, &new].map(|uid| pod(&of(uid), "copy-abcdefgh", 1, &settings()));
    assert!(crate::observe::belongs(&first, &old) && !crate::observe::belongs(&first, &new));
    assert!(crate::observe::belongs(&second, &new) && !crate::observe::belongs(&second, &old));
    let token = |pod: &Pod| serde_json::to_value(pod).unwrap()["spec"]["volumes"][0]["projected"]["sources"][0].clone();
    assert_ne!(token(&first), token(&second), "a token for the old one is none for the new one");
    // The certificate's name is the same, so it must not go with the old one: the new one is its only owner once applied.
    let map = ca_config_map(&of(&new), "PEM");
    let owners: Vec<String> = map.metadata.owner_references.unwrap().into_iter().map(|owner| owner.uid).collect();
    assert_eq!(owners, ["new"]);
}

#[test]
fn a_pod_that_keeps_blocks_has_a_place_for_them_and_serves_them() {
    let pod = built_of(&with_blocks(json!({"sizeLimit": "1Gi"}), json!({})));
    let container = &pod["spec"]["containers"][0];
    let env = container["env"].as_array().unwrap();
    assert_eq!(
        env[10..],
        [
            json!({"name": "HYPERFLOW_BLOCKS_DIR", "value": "/hyperflow/blocks"}),
            json!({"name": "HYPERFLOW_BLOCKS_LISTEN", "value": "0.0.0.0:7701"}),
            json!({"name": "HYPERFLOW_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
            json!({"name": "HYPERFLOW_BLOCKS_PERSISTENT", "value": "false"}),
            json!({"name": "HYPERFLOW_BLOCKS_RATE", "value": "50000000"}),
            json!({"name": "HYPERFLOW_BLOCKS_LIMIT", "value": "1073741824"}),
        ]
    );
    assert_eq!(container["ports"][1], json!({"name": "blocks", "containerPort": 7701}));
    let mount = json!({"name": "hyperflow-blocks", "mountPath": "/hyperflow/blocks", "readOnly": false});
    assert_eq!(container["volumeMounts"][2], mount);
    let volume = json!({"name": "hyperflow-blocks", "emptyDir": {}});
    assert_eq!(pod["spec"]["volumes"][2], volume);
    assert_eq!(built(json!({}))["spec"]["containers"][0]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn blocks_are_on_the_users_volume_or_else_on_the_administrators() {
    let volumes = json!({"volumes": [
        {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}, {"name": "ram", "emptyDir": {}}
    ]});
    let mut settings = settings();
    let host = r#"{"hostPath":{"path":"/var/blocks","type":"Directory"}}"#;
    settings.blocks_volume = Some(crate::settings::BlocksVolume::read(host).unwrap());
    for (name, persistent) in [("disk", "true"), ("ram", "false")] {
        let pod = built_by(&settings, &with_blocks(json!({"volumeName": name}), volumes.clone()));
        assert_eq!(variable(&pod, "HYPERFLOW_BLOCKS_PERSISTENT").unwrap(), persistent, "{name}");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][2]["name"], name);
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 4, "none of ours");
    }
    let pod = built_by(&settings, &with_blocks(json!({}), volumes));
    assert_eq!(variable(&pod, "HYPERFLOW_BLOCKS_PERSISTENT").unwrap(), "true");
    assert_eq!(variable(&pod, "HYPERFLOW_BLOCKS_LIMIT"), None);
    let wanted = json!({"name": "hyperflow-blocks", "hostPath": {"path": "/var/blocks", "type": "Directory"}});
    assert_eq!(pod["spec"]["volumes"][4], wanted);
}

#[test]
fn a_pod_that_keeps_blocks_waits_for_its_node_without_end_unless_the_user_says_otherwise() {
    let tolerations = |workers| built_of(&with_blocks(json!({}), workers))["spec"]["tolerations"].clone();
    let wanted = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
    let (one, two) = (wanted("node.kubernetes.io/not-ready"), wanted("node.kubernetes.io/unreachable"));
    assert_eq!(tolerations(json!({})), json!([one, two]));
    let own = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 99});
    assert_eq!(tolerations(json!({"tolerations": [own]})), json!([own, two]));
}

#[test]
fn pods_are_told_apart_by_what_blocks_change_in_them() {
    let digest = |blocks: Option<Value>| match blocks {
        Some(blocks) => workers_digest(&with_blocks(blocks, json!({}))),
        None => workers_digest(&spec(json!({}))),
    };
    let with = digest(Some(json!({})));
    assert_ne!(with, digest(None));
    assert_ne!(with, digest(Some(json!({"sizeLimit": "1Gi"}))));
    assert_ne!(with, digest(Some(json!({"volumeName": "disk"}))));
    assert_eq!(with, digest(Some(json!({"replicas": 3}))), "no pod is another one for it");
}
