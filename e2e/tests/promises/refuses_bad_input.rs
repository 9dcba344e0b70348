//! What cannot work is refused at `kubectl apply`, naming the field and the remedy.

use hyperflow_e2e::{Result, cluster::Place, ensure};
use serde_json::{Value, json};

pub async fn keeps(place: &Place) -> Result {
    let cases: &[(&str, &str, Value, &str)] = &[
        (
            "two sources",
            "/spec/source/numbers",
            json!({"count": 1}),
            "spec.source: Invalid value: must set exactly one of `files` and `numbers`",
        ),
        ("no source", "/spec/source", json!({}), "must set exactly one of `files` and `numbers`"),
        (
            "path not under a mount",
            "/spec/source/files/url",
            json!("file:///mnt/all.fasta"),
            "spec.source.files.url: Invalid value: 'file:///mnt/all.fasta' must lie under the `mountPath` of an entry in `workers.volumeMounts`",
        ),
        (
            "64 MB",
            "/spec/source/files/bytesPerShard",
            json!("64 MB"),
            "must be a quantity such as 67108864, '64Mi' or '1Gi' (no space, no 'B')",
        ),
        ("size 0", "/spec/source/files/bytesPerShard", json!(0), "must be between 4Ki and 5Ti"),
        ("no size", "/spec/source/files/bytesPerShard", Value::Null, "say how large a shard is, for example 64Mi"),
        (
            "parent in input",
            "/spec/source/files/url",
            json!("file:///data/../etc/passwd"),
            "must not contain a '..' segment",
        ),
        (
            "parent in output",
            "/spec/output/path",
            json!("../part-{index}"),
            "must be relative and must not contain a '..' segment",
        ),
        (
            "no index",
            "/spec/output/path",
            json!("part"),
            "must contain {index}, or every shard would have the same name",
        ),
        (
            "typo in a placeholder",
            "/spec/output/path",
            json!("part-{shard}-{index}"),
            "has an unknown placeholder; use {index}",
        ),
        ("no output", "/spec/output", Value::Null, "`output` is required by `task.copy`"),
        ("output is a file", "/spec/output/url", json!("file:///data/out"), "must end with '/': it names a directory"),
        ("two tasks", "/spec/task/noop", json!({}), "must set exactly one of `copy` and `noop`"),
        (
            "host path",
            "/spec/workers/volumes/0/hostPath",
            json!({"path": "/"}),
            "unknown field \"spec.workers.volumes[0].hostPath\"",
        ),
        ("root", "/spec/workers/securityContext", json!({"runAsUser": 0}), "should be greater than or equal to 1"),
        ("long name", "/metadata/name", json!("a".repeat(53)), "metadata.name must be no more than 52 characters"),
        ("negative", "/spec/parallelism", json!(-1), "should be greater than or equal to 0"),
        ("no time", "/spec/activeDeadlineSeconds", json!(0), "should be greater than or equal to 1"),
        ("time before the end", "/spec/ttlSecondsAfterFinished", json!(-1), "should be greater than or equal to 0"),
        ("controller without domain", "/spec/managedBy", json!("somebody"), "must be a domain-prefixed path"),
    ];
    for (name, pointer, value, message) in cases {
        let mut manifest = super::copy("bad", "4Mi", "1G", 1, 1);
        let (parent, key) = pointer.rsplit_once('/').ok_or("a pointer without a parent")?;
        let object = manifest.pointer_mut(parent).ok_or("a pointer to nothing")?;
        match (value, object.as_object_mut()) {
            (Value::Null, Some(fields)) => drop(fields.remove(key)),
            _ => object[key] = value.clone(),
        }
        match place.apply(manifest).await {
            Ok(_) => return Err(format!("{name}: was accepted").into()),
            Err(error) => {
                let said = error.to_string();
                ensure(said.contains(message), || format!("{name}: said '{said}', not '{message}'"))?;
            }
        }
    }
    let frozen = place.apply(super::copy("frozen", "4Mi", "1G", 0, 1)).await?;
    ensure(place.workers().await?.is_empty(), || "what was refused made pods".into())?;
    // Before there is a plan the source may be corrected.
    frozen.patch(json!({"spec": {"source": {"files": {"bytesPerShard": "8Mi"}}}})).await
}
