//! What cannot work is refused at `kubectl apply`, naming the field and the remedy.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    command::{self, refused},
    ensure,
    job::Job,
};
use serde_json::{Value, json};

/// What is asked of the API server at a time.
const BESIDE: usize = 4;

/// Its name, what it changes in a good manifest (null: takes away), and what is said.
type Case = (&'static str, Value, &'static str);

pub async fn keeps(place: &Place) -> Result {
    let cases = [sources(), tasks(), programs(), policies(), outputs(), others()].concat();
    let mut asked = Vec::new();
    for case in &cases {
        asked.push(is_refused(place, case));
    }
    stream::iter(asked).buffer_unordered(BESIDE).try_collect::<()>().await?;

    let frozen = place.apply(super::copy("early", "4Mi", "1G", 0, 1)).await?;
    ensure(place.workers().await?.is_empty(), || "what was refused made pods".into())?;
    // Before there is a plan the source may be corrected.
    frozen.patch(json!({"spec": {"source": {"files": {"bytesPerShard": "8Mi"}}}})).await?;
    frozen.delete().await?;
    is_frozen_once_planned(place).await
}

fn sources() -> Vec<Case> {
    const FILES: &str = "/spec/source/files";
    const BYTES: &str = "/spec/source/files/bytesPerShard";
    const URL: &str = "/spec/source/files/url";
    let files = |files: Value| json!({FILES: files});
    vec![
        (
            "two sources",
            json!({"/spec/source/numbers": {"count": 1}}),
            "spec.source: Invalid value: must set exactly one of `files`, `items` and `numbers`",
        ),
        ("no source", json!({"/spec/source": {}}), "must set exactly one of `files`, `items` and `numbers`"),
        ("unknown scheme", json!({URL: "hdfs://x/y/"}), "must start with 'file:///'"),
        (
            "path not under a mount",
            json!({URL: "file:///mnt/all.fasta"}),
            "spec.source.files.url: Invalid value: 'file:///mnt/all.fasta' must lie under the `mountPath` of an entry in `workers.volumeMounts`",
        ),
        ("parent in input", json!({URL: "file:///data/../etc/passwd"}), "must not contain a '..' segment"),
        ("64 MB", json!({BYTES: "64 MB"}), "must be a quantity such as 67108864, '64Mi' or '1Gi' (no space, no 'B')"),
        ("size 0", json!({BYTES: 0}), "spec.source.files.bytesPerShard: Invalid value: must be between 4Ki and 5Ti"),
        ("negative size", json!({BYTES: "-1Mi"}), "must be between 4Ki and 5Ti"),
        ("tiny size", json!({BYTES: 4095}), "must be between 4Ki and 5Ti"),
        ("huge size", json!({BYTES: "6Ti"}), "must be between 4Ki and 5Ti"),
        ("no size", json!({BYTES: null}), "say how large a shard is, for example 64Mi"),
        (
            "no size of lines",
            files(json!({"url": "file:///data/in/x", "boundary": "Line"})),
            "`bytesPerShard` is required when `boundary` is 'Line' or 'Byte'",
        ),
        (
            "typo in a boundary",
            json!({"/spec/source/files/boundary": "file"}),
            "Unsupported value: \"file\": supported values: \"File\", \"Line\", \"Byte\"",
        ),
        (
            "many files in a range",
            json!({"/spec/source/files/filesPerShard": 3}),
            "`filesPerShard` may only be set when `boundary` is 'File'",
        ),
        (
            "records of bytes",
            json!({"/spec/source/files/recordPrefix": ">"}),
            "`recordPrefix` may only be set when `boundary` is 'Line'",
        ),
        (
            "globs on a list",
            files(json!({"manifest": {"url": "file:///data/list"}, "boundary": "File", "include": ["*"]})),
            "a manifest names its files one by one: remove `include` and `exclude`",
        ),
        (
            "two lists",
            files(json!({
                "manifest": {"url": "file:///data/list", "configMapKeyRef": {"name": "a", "key": "b"}}, "boundary": "File"
            })),
            "must set exactly one of `url` and `configMapKeyRef`",
        ),
        (
            "items twice",
            json!({"/spec/source": {"items": {"values": ["a"], "manifest": {"url": "file:///data/list"}}}}),
            "must set exactly one of `values` and `manifest`; `values` holds at most 1000 items",
        ),
        (
            "too many shards",
            json!({
                "/spec/source": {"numbers": {"count": 5_000_000}}, "/spec/task": {"noop": {}}, "/spec/output": null
            }),
            "spec.source.numbers: Invalid value: makes more than 1000000 shards; raise `numbersPerShard`",
        ),
    ]
}

fn tasks() -> Vec<Case> {
    const WHOLE: &str =
        "`task.checksum` needs `source.files` with `boundary` 'File': a checksum is that of a whole file";
    const ONE: &str =
        "must set exactly one of `exec`, `copy`, `checksum` and `noop`; write one without fields as 'noop: {}'";
    vec![
        ("two tasks", json!({"/spec/task/noop": {}}), ONE),
        (
            "a task that is null",
            json!({"/spec/source": {"numbers": {"count": 5}}, "/spec/task": {"noop": null}, "/spec/output": null}),
            ONE,
        ),
        ("copy of numbers", json!({"/spec/source": {"numbers": {"count": 5}}}), "`task.copy` needs `source.files`"),
        ("checksum of a part", json!({"/spec/task": {"checksum": {}}}), WHOLE),
        (
            "output of nothing",
            json!({"/spec/source": {"numbers": {"count": 5}}, "/spec/task": {"noop": {}}}),
            "`task.noop` publishes nothing: remove `output`",
        ),
        (
            "nowhere to keep checksums",
            json!({
                "/spec/source/files": {"url": "file:///data/in/", "boundary": "File"}, "/spec/task": {"checksum": {}},
                "/spec/output": null
            }),
            "spec.records: Required value: `records` is required without `output`: the plan and the report need a place",
        ),
        (
            "copies with one name",
            json!({"/spec/task/copy/copies": 3}),
            "must contain {copy} when `task.copy.copies` is greater than 1, and may not contain it otherwise",
        ),
        (
            "one copy with a number",
            json!({"/spec/output/path": "{copy}/{index}"}),
            "must contain {copy} when `task.copy.copies` is greater than 1, and may not contain it otherwise",
        ),
        ("nine copies", json!({"/spec/task/copy/copies": 9}), "should be less than or equal to 8"),
    ]
}

fn programs() -> Vec<Case> {
    const TASK: &str = "/spec/task";
    const INPUT: &str = "spec.task.exec.input: Invalid value: ";
    let with = |more: Value| {
        let mut exec = json!({"exec": {"image": "i", "command": ["wc"], "input": "Stdin", "output": "Stdout"}});
        if let (Some(exec), Some(more)) = (exec["exec"].as_object_mut(), more.as_object()) {
            exec.extend(more.clone());
        }
        exec
    };
    let exec = |more: Value| json!({TASK: with(more)});
    let of = |source: Value, more: Value| json!({"/spec/source": source, TASK: with(more)});
    let numbers = || json!({"numbers": {"count": 3}});
    vec![
        ("empty command", exec(json!({"command": []})), "spec.task.exec.command in body should have at least 1 items"),
        ("no image", exec(json!({"image": ""})), "spec.task.exec.image in body should be at least 1 chars long"),
        (
            "a program's output without a place",
            json!({TASK: with(json!({})), "/spec/output": null}),
            "`task.exec` needs `output` for its results, unless `task.exec.output` is 'None'",
        ),
        ("a place without output", exec(json!({"output": "None"})), "then `output` may not be set"),
        (
            "a variable of ours",
            exec(json!({"env": [{"name": "HYPERFLOW_RUN", "value": "7"}]})),
            "spec.task.exec.env: Invalid value: names starting with 'HYPERFLOW_' are set by the worker; use others",
        ),
        ("a range of numbers", of(numbers(), json!({"input": "Range"})), INPUT),
        ("files in the environment", exec(json!({"input": "None"})), "'None' needs `source.items` or `source.numbers`"),
        (
            "two items in a variable",
            of(json!({"items": {"values": ["a", "b"], "itemsPerShard": 2}}), json!({"input": "None"})),
            "needs `source.items.itemsPerShard` 1: HYPERFLOW_ITEM is one item",
        ),
        (
            "two files as one",
            of(
                json!({"files": {"url": "file:///data/in/", "boundary": "File", "filesPerShard": 2}}),
                json!({"input": "File"}),
            ),
            "need one file per shard: `source.files.filesPerShard` 1; or use 'Directory'",
        ),
        (
            "stdin of a slot",
            exec(json!({"lifetime": "Slot"})),
            "with `lifetime` 'Slot' stdin carries the shards, as JSON lines",
        ),
        ("exit code 300", exec(json!({"successExitCodes": [0, 300]})), "should be less than or equal to 255"),
        ("lowercase mode", exec(json!({"input": "stdin"})), "supported values: \"Stdin\", \"File\", \"Directory\""),
        (
            "finally without a program",
            json!({"/spec/finally": {"command": ["true"]}}),
            "`finally` runs in the image of `task.exec`, which is not set",
        ),
        (
            "a result without a name",
            json!({TASK: with(json!({})), "/spec/finally": {"command": ["true"], "output": "Stdout"}}),
            "`path` names the result: it is required with `output` 'Stdout' and 'File'",
        ),
        ("no scratch", json!({"/spec/workers/scratch": {}}), "must set `sizeLimit`, `volumeName` or both"),
    ]
}

fn policies() -> Vec<Case> {
    const POLICY: &str = "/spec/failurePolicy";
    let rule = |rule: Value| json!({POLICY: {"rules": [rule]}});
    vec![
        (
            "101 %",
            json!({POLICY: {"maxFailedShards": "101%"}}),
            "must be a number from 0 on, or a percentage such as '1%'",
        ),
        ("fewer than none", json!({POLICY: {"maxFailedShards": -1}}), "must be a number from 0 on"),
        (
            "a rule about nothing",
            rule(json!({"action": "Count"})),
            "must set at least one of `onExitCodes`, `onClasses` and `onMessagePattern`",
        ),
        (
            "another node for a job that ends",
            rule(json!({"action": "FailJob", "onClasses": ["Timeout"], "retryOn": "OtherNode"})),
            "`retryOn` needs an `action` after which there is another attempt",
        ),
        (
            "an action of Argo",
            rule(json!({"action": "Retry", "onClasses": ["Timeout"]})),
            "supported values: \"Count\"",
        ),
        (
            "a duplicate without a place",
            json!({
                "/spec/source/files": {"url": "file:///data/in/", "boundary": "File"}, "/spec/task": {"checksum": {}},
                "/spec/output": null, "/spec/records": {"url": "file:///data/r/"}, "/spec/speculation": {"mode": "Duplicate"}
            }),
            "'Duplicate' needs `output`: without it nothing tells which of two attempts was first",
        ),
        (
            "all again under one name",
            json!({"/spec/rerun": {"nonce": "a", "scope": "All"}}),
            "'All' needs {run} in `output.path`: what was published is never replaced",
        ),
        (
            "no indexes",
            json!({"/spec/rerun": {"nonce": "a", "scope": "Indexes"}}),
            "`indexes` is required with `scope` 'Indexes'",
        ),
        (
            "an index that is none",
            json!({"/spec/rerun": {"nonce": "a", "scope": "Indexes", "indexes": "3,x"}}),
            "spec.rerun.indexes in body should match",
        ),
    ]
}

fn outputs() -> Vec<Case> {
    const PATH: &str = "/spec/output/path";
    const RELATIVE: &str = "must be relative and must not contain a '..' segment";
    vec![
        ("no output", json!({"/spec/output": null}), "`output` is required by `task.copy`"),
        (
            "output is a file",
            json!({"/spec/output/url": "file:///data/out"}),
            "must end with '/': it names a directory",
        ),
        (
            "output that cannot be written",
            json!({"/spec/workers/volumeMounts/0/readOnly": true}),
            "spec.output.url: Invalid value: 'file:///data/out/' must lie under the `mountPath` of an entry in `workers.volumeMounts` that is not `readOnly`",
        ),
        (
            "output over the source",
            json!({"/spec/source/files/url": "file:///data/out/"}),
            "must not be the source's `url`: results would be read as input",
        ),
        ("parent in output", json!({PATH: "../part-{index}"}), RELATIVE),
        ("absolute output", json!({PATH: "/part-{index}"}), RELATIVE),
        (
            "one name for all",
            json!({PATH: "part"}),
            "must contain {index}, {id}, {name} or {stem}, or every shard would have the same name",
        ),
        (
            "typo in a placeholder",
            json!({PATH: "part-{shard}-{index}"}),
            "has an unknown placeholder; use {index}, {id}, {run}, {copy}, {dir}, {name}, {stem} or {ext}",
        ),
        (
            "file names of parts",
            json!({PATH: "{stem}.gff"}),
            "{dir}, {name}, {stem} and {ext} need one file per shard: `source.files.boundary` 'File' and `filesPerShard` 1",
        ),
    ]
}

fn others() -> Vec<Case> {
    vec![
        (
            "host path",
            json!({"/spec/workers/volumes/0/hostPath": {"path": "/"}}),
            "unknown field \"spec.workers.volumes[0].hostPath\"",
        ),
        (
            "mount of no volume",
            json!({"/spec/workers/volumes/0/name": "other"}),
            "spec.workers.volumeMounts: Invalid value: each `name` must be the name of an entry in `volumes`",
        ),
        ("root", json!({"/spec/workers/securityContext": {"runAsUser": 0}}), "should be greater than or equal to 1"),
        (
            "8 GB of memory",
            json!({"/spec/workers/resources": {"requests": {"memory": "8 GB"}}}),
            "must be quantities such as '500m' or '8Gi' (no space, no 'B')",
        ),
        ("field of a Job", json!({"/spec/backoffLimit": 4}), "unknown field \"spec.backoffLimit\""),
        ("template of a Job", json!({"/spec/template": {"spec": {}}}), "unknown field \"spec.template\""),
        ("long name", json!({"/metadata/name": "a".repeat(53)}), "metadata.name must be no more than 52 characters"),
        ("negative", json!({"/spec/parallelism": -1}), "should be greater than or equal to 0"),
        ("yes", json!({"/spec/suspend": "yes"}), "spec.suspend in body must be of type boolean"),
        ("no time", json!({"/spec/activeDeadlineSeconds": 0}), "should be greater than or equal to 1"),
        ("time before the end", json!({"/spec/ttlSecondsAfterFinished": -1}), "should be greater than or equal to 0"),
        ("controller without domain", json!({"/spec/managedBy": "somebody"}), "must be a domain-prefixed path"),
    ]
}

async fn is_refused(place: &Place, (name, edits, message): &Case) -> Result {
    let mut manifest = super::copy("bad", "4Mi", "1G", 1, 1);
    for (pointer, value) in edits.as_object().into_iter().flatten() {
        let (parent, key) = pointer.rsplit_once('/').ok_or("a pointer without a parent")?;
        let object = manifest.pointer_mut(parent).ok_or("a pointer to nothing")?;
        match (value, object.as_object_mut()) {
            (Value::Null, Some(fields)) => drop(fields.remove(key)),
            _ => object[key] = value.clone(),
        }
    }
    let args = ["create", "--dry-run=server", "--namespace", &place.namespace, "--filename", "-"];
    let said = refused(name, command::run_with("kubectl", &args, &manifest.to_string()).await)?;
    ensure(said.contains(message), || format!("{name}: said '{said}', not '{message}'"))
}

async fn is_frozen_once_planned(place: &Place) -> Result {
    place.write_input("input", 0, 1)?;
    let job = place.apply(super::copy("frozen", "4Mi", "1G", 1, 1)).await?;
    job.complete(Duration::from_secs(60)).await?;
    const TASK: &str =
        "spec.task: Invalid value: may only be changed once planned together with a new `spec.rerun.nonce`";
    let another = |what| format!("is immutable once planned: create another ShardJob for {what}");
    for (patch, message) in [
        (json!({"source": {"files": {"bytesPerShard": "8Mi"}}}), another("other input")),
        (json!({"task": {"copy": {"copies": 2}}, "output": {"path": "{copy}-{index}"}}), TASK.into()),
        (
            json!({"output": {"path": "other-{index}"}}),
            "spec.output: Invalid value: is immutable once planned: results already published are there".into(),
        ),
        (
            json!({"records": {"url": "file:///data/records/"}}),
            "spec.records: Invalid value: is immutable once planned: the plan is there".into(),
        ),
        (json!({"managedBy": "acme.io/other"}), "is immutable: create another ShardJob".into()),
    ] {
        let said = unchanged(&job, &patch).await?;
        ensure(said.contains(&message), || format!("{patch}: said '{said}', not '{message}'"))?;
    }
    // What may change still does.
    job.scale(3).await
}

async fn unchanged(job: &Job, spec: &Value) -> Result<String> {
    match job.patch(json!({"spec": spec})).await {
        Ok(()) => Err(format!("{spec} was accepted").into()),
        Err(error) => Ok(error.to_string()),
    }
}
