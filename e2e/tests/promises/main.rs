//! `cargo test -p hyperflow-e2e --test promises -- [WORD…]`: all promises, or those whose names contain a word.

#![allow(clippy::print_stdout, reason = "a test program speaks to people")]

mod cleans_up_when_deleted;
mod copies_a_tree;
mod copies_blocks_again;
mod copies_byte_identical;
mod counts_numbers;
mod cuts_between_lines;
mod ends_by_its_deadline;
mod fails_with_remedy;
mod gives_blocks_to_nobody_else;
mod goes_on_from_results;
mod goes_when_its_time_is_over;
mod heals_flipped_bits;
mod keeps_blocks_beyond_pods;
mod keeps_blocks_on_disks;
mod keeps_checksums;
mod keeps_copies_of_the_input;
mod keeps_status_small;
mod leaves_managed_jobs_alone;
mod lists_many_files;
mod loads_models_once;
mod makes_three_copies;
mod notices_changed_input;
mod only_who_may_create_pods;
mod overtakes_stragglers;
mod pauses_copying_without_most_nodes;
mod reads_manifests;
mod refreshes_only_stale_blocks;
mod refuses_bad_input;
mod resumes_programs;
mod runs_again;
mod runs_any_program;
mod runs_the_examples;
mod says_why_no_worker_runs;
mod scales_while_running;
mod serves_one_namespace;
mod spreads_copies_over_zones;
mod survives_all_killed;
mod survives_api_outage;
mod survives_bad_programs;
mod survives_cut_link;
mod survives_deleted_pod;
mod survives_drain;
mod survives_etcd_outage;
mod survives_eviction_and_preemption;
mod survives_frozen_worker;
mod survives_full_block_store;
mod survives_killed_worker;
mod survives_operator_kill;
mod survives_out_of_memory;
mod survives_restarted_container;
mod survives_restored_etcd;
mod survives_rollout;
mod survives_stopped_node;
mod suspends_and_resumes;
mod takes_any_name;
mod two_leaders_publish_once;
mod understands_failures;
mod upgrades_under_load;
mod waits_for_copies;
mod waits_for_room;
mod waits_like_helm;

use std::process::ExitCode;

use hyperflow_e2e::{
    Result,
    cluster::Place,
    harness::{self, Promise},
    image::test_image,
};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

/// A promise named as its file, tried beside the others or alone.
macro_rules! promise {
    ($name:ident, alone: $alone:literal) => {
        Promise { name: stringify!($name), alone: $alone, body: |place| Box::pin($name::keeps(place)) }
    };
}

const PROMISES: &[Promise] = &[
    promise!(survives_frozen_worker, alone: false),
    promise!(survives_killed_worker, alone: false),
    promise!(survives_deleted_pod, alone: false),
    promise!(survives_restarted_container, alone: false),
    promise!(survives_bad_programs, alone: false),
    promise!(understands_failures, alone: false),
    promise!(overtakes_stragglers, alone: false),
    promise!(runs_any_program, alone: false),
    promise!(loads_models_once, alone: false),
    promise!(runs_again, alone: false),
    promise!(resumes_programs, alone: false),
    promise!(keeps_copies_of_the_input, alone: false),
    promise!(keeps_blocks_beyond_pods, alone: false),
    promise!(waits_for_copies, alone: false),
    promise!(heals_flipped_bits, alone: false),
    promise!(notices_changed_input, alone: false),
    promise!(survives_full_block_store, alone: false),
    promise!(gives_blocks_to_nobody_else, alone: false),
    promise!(makes_three_copies, alone: false),
    promise!(copies_byte_identical, alone: false),
    promise!(copies_a_tree, alone: false),
    promise!(goes_on_from_results, alone: false),
    promise!(reads_manifests, alone: false),
    promise!(keeps_checksums, alone: false),
    promise!(cuts_between_lines, alone: false),
    promise!(refuses_bad_input, alone: false),
    promise!(fails_with_remedy, alone: false),
    promise!(runs_the_examples, alone: false),
    promise!(takes_any_name, alone: false),
    promise!(counts_numbers, alone: false),
    promise!(survives_out_of_memory, alone: false),
    promise!(only_who_may_create_pods, alone: false),
    promise!(waits_like_helm, alone: false),
    promise!(survives_eviction_and_preemption, alone: false),
    promise!(leaves_managed_jobs_alone, alone: false),
    promise!(lists_many_files, alone: false),
    promise!(says_why_no_worker_runs, alone: false),
    promise!(scales_while_running, alone: false),
    promise!(waits_for_room, alone: false),
    promise!(ends_by_its_deadline, alone: true),
    promise!(goes_when_its_time_is_over, alone: true),
    promise!(survives_operator_kill, alone: true),
    promise!(two_leaders_publish_once, alone: true),
    promise!(survives_rollout, alone: true),
    promise!(upgrades_under_load, alone: true),
    promise!(serves_one_namespace, alone: true),
    promise!(survives_etcd_outage, alone: true),
    promise!(survives_api_outage, alone: true),
    promise!(survives_all_killed, alone: true),
    promise!(keeps_status_small, alone: true),
    promise!(suspends_and_resumes, alone: true),
    promise!(cleans_up_when_deleted, alone: true),
    promise!(survives_drain, alone: true),
    promise!(survives_cut_link, alone: true),
    promise!(survives_stopped_node, alone: true),
    promise!(copies_blocks_again, alone: true),
    promise!(keeps_blocks_on_disks, alone: true),
    promise!(refreshes_only_stale_blocks, alone: true),
    promise!(pauses_copying_without_most_nodes, alone: true),
    promise!(spreads_copies_over_zones, alone: true),
    // Last: what the cluster knows goes back, of everything.
    promise!(survives_restored_etcd, alone: true),
];

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    match harness::run(PROMISES, &words).await {
        Ok((passed, failed)) => {
            println!("\ntest result: {passed} passed; {failed} failed");
            if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("cannot reach a cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A job of a thousand shards that do nothing.
fn numbers(name: &str) -> Value {
    json!({
        "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": name},
        "spec": {"source": {"numbers": {"count": 1000}}, "task": {"noop": {}}}
    })
}

/// A copy of `in/input` in shards of so many bytes; `rate` for each worker. Checkpoints come every second or MiB.
fn copy(name: &str, bytes_per_shard: &str, rate: &str, workers: u32, slots: u32) -> Value {
    json!({
        "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob", "metadata": {"name": name},
        "spec": {
            "source": {"files": {"url": "file:///data/in/input", "boundary": "Byte", "bytesPerShard": bytes_per_shard}},
            "task": {"copy": {}},
            "output": {"url": "file:///data/out/"},
            "parallelism": workers,
            "workers": {
                "slots": slots, "bytesPerSecond": rate, "terminationGracePeriodSeconds": 5,
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]
            },
            "checkpoint": {"periodSeconds": 1, "bytes": "1Mi"}
        }
    })
}

/// The same of other files: `output` is the folder of the results, and `path` names them.
fn copy_of(name: &str, files: &Value, output: &str, path: &str) -> Value {
    let mut job = copy(name, "4Mi", "1G", 2, 2);
    job["spec"]["source"] = json!({"files": files});
    job["spec"]["output"] = json!({"url": output, "path": path});
    job
}

/// Files that are read and of which nothing is published; what is known of them is kept in `file:///data/records/`.
fn kept(name: &str, source: Value, task: Value) -> Value {
    let mut job = copy(name, "4Mi", "1G", 1, 2);
    job["spec"]["source"] = source;
    job["spec"]["task"] = task;
    job["spec"]["records"] = json!({"url": "file:///data/records/"});
    job["spec"].as_object_mut().map(|spec| spec.remove("output"));
    job
}

/// Images that `make test-images` builds: a shell and its tools; Python; one program and nothing else.
const BUSYBOX: &str = "busybox";
const PYTHON: &str = "python";
const STATIC: &str = "static";

/// A program for each shard of a source, two workers with two slots each. Its results, if it has any, are in `out/`; what
/// is known of it without any is kept in `file:///data/records/`.
fn program(name: &str, image: &str, source: Value, exec: &Value) -> Value {
    let mut job = copy(name, "4Mi", "1G", 2, 2);
    job["spec"]["source"] = source;
    job["spec"]["task"] = json!({"exec": exec});
    job["spec"]["task"]["exec"]["image"] = json!(test_image(image));
    job["spec"]["failurePolicy"] = json!({"backoff": {"initialSeconds": 1, "maxSeconds": 2}});
    if job["spec"]["task"]["exec"]["output"] == "None" {
        job["spec"].as_object_mut().map(|spec| spec.remove("output"));
        job["spec"]["records"] = json!({"url": "file:///data/records/"});
    }
    job
}

/// A copy of `in/input` in shards of a MiB by a program that waits for a gate to open, so that faults find shards under
/// way and blocks in place. Copies of the input are kept on so many nodes.
fn gated(name: &str, workers: u32, replicas: usize) -> Value {
    let source = json!({"files": {"url": "file:///data/in/input", "boundary": "Byte", "bytesPerShard": "1Mi"}});
    let command = ["sh", "-c", "until [ -e /data/go ]; do sleep 0.2; done; cat"];
    let exec = json!({"command": command, "input": "Stdin", "output": "Stdout"});
    let mut job = program(name, BUSYBOX, source, &exec);
    job["spec"]["parallelism"] = json!(workers);
    job["spec"]["blocks"] = json!({"replicas": replicas});
    job
}

/// Lets shards from this one on wait for a second gate, `go-on`, as well.
fn hold_back(job: &mut Value, from: u32) {
    let wait = format!("[ -e /data/go ] && {{ [ $JOB_COMPLETION_INDEX -lt {from} ] || [ -e /data/go-on ]; }}");
    job["spec"]["task"]["exec"]["command"][2] = json!(format!("until {wait}; do sleep 0.2; done; cat"));
}

fn open_gate(place: &Place) -> Result {
    place.write("go", b"").map(drop)
}

fn close_gate(place: &Place) -> Result {
    Ok(std::fs::remove_file(place.path("go"))?)
}

/// A pod that does nothing, and goes at once.
fn idle(name: &str) -> Value {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsUser": 65_532}, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "pause", "image": "hyperflow.dev/pause:1", "imagePullPolicy": "IfNotPresent",
                "securityContext": restricted
            }]
        }
    })
}

/// Waits until an event has this reason.
async fn told(place: &Place, reason: &str, limit: std::time::Duration) -> Result {
    let told = async {
        while !events(place).await?.iter().any(|(said, _)| said == reason) {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        Ok(())
    };
    tokio::time::timeout(limit, told).await.map_err(|_| format!("no event {reason} in {limit:?}"))?
}

/// Reasons and notes of all events of the place.
async fn events(place: &Place) -> Result<Vec<(String, String)>> {
    let api: Api<Event> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    let events = api.list(&ListParams::default()).await?;
    Ok(events.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect())
}
