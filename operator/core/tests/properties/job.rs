//! Specs: whatever JSON makes one is refused by name, or sound.

use hyperflow_api::ShardJobSpec;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::checks::job;

const TEXTS: [&str; 28] = [
    "",
    "/",
    ".",
    "..",
    "file:///",
    "file:///data/in",
    "file:///data/in/",
    "file:///data/../in",
    "file://data/in",
    "file:///data/out/",
    "file:///data/out/_hyperflow/x",
    "part-{index}",
    "{index}/..",
    "a//{index}",
    "{{index}}",
    "{index}{index}",
    "Byte",
    "Line",
    "64Mi",
    "4Ki",
    "4095",
    "5Ti",
    "6Ti",
    "8Ei",
    "-1",
    "0",
    "1e3",
    "/data",
];

const NUMBERS: [i64; 10] = [0, 1, -1, 255, 4096, 1_000_000, 1_000_001, i32::MAX as i64, i64::MAX, i64::MIN];

/// Values that sit on an edge somewhere, and anything.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => select(&TEXTS[..]).prop_map(Value::from),
        4 => select(&NUMBERS[..]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => "\\PC{0,20}".prop_map(Value::from),
        1 => Just(json!({})),
        1 => Just(json!([])),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

/// A sound spec to begin with, of either kind.
fn sound(files: bool) -> Value {
    let source = match files {
        true => json!({"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}}),
        false => json!({"numbers": {"start": 0, "count": 10, "numbersPerShard": 3}}),
    };
    let task = if files { json!({"copy": {}}) } else { json!({"noop": {}}) };
    let mut spec = json!({
        "source": source, "task": task, "parallelism": 3, "suspend": false,
        "checkpoint": {"periodSeconds": 5, "bytes": "64Mi"},
        "failurePolicy": {"maxAttempts": 4, "backoff": {"initialSeconds": 5, "maxSeconds": 300}},
        "workers": {
            "slots": 2, "bytesPerSecond": "1Gi", "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": false}]
        }
    });
    if files {
        spec["output"] = json!({"url": "file:///data/out/", "path": "part-{index}"});
    }
    spec
}

/// Every place in a value that can be another.
fn places(value: &Value, path: &str, all: &mut Vec<String>) {
    let fields: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), field)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(place, item)| (place.to_string(), item)).collect(),
        _ => vec![],
    };
    for (name, field) in fields {
        let path = format!("{path}/{name}");
        places(field, &path, all);
        all.push(path);
    }
}

fn changed(files: bool, changes: Vec<(prop::sample::Index, Option<Value>)>) -> Value {
    let mut spec = sound(files);
    for (place, value) in changes {
        let mut all = vec![];
        places(&spec, "", &mut all);
        let Some(path) = all.get(place.index(all.len().max(1))) else { break };
        let (parent, name) = path.rsplit_once('/').unwrap();
        match (spec.pointer_mut(parent), value) {
            (Some(Value::Object(fields)), None) => drop(fields.remove(name)),
            (Some(parent), Some(value)) => *parent.pointer_mut(&format!("/{name}")).unwrap() = value,
            _ => {}
        }
    }
    spec
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_changed_spec_is_refused_by_name_or_sound(
        files in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), prop::option::of(value())), 0..4),
    ) {
        job::spec(&serde_json::to_vec(&changed(files, changes)).unwrap());
    }

    #[test]
    fn no_names_make_two_shards_one(path in "[a-c./{}]{0,6}(\\{index\\}[a-c./{}]{0,4}){0,2}") {
        let mut spec = sound(true);
        spec["output"]["path"] = json!(path);
        job::spec(&serde_json::to_vec(&spec).unwrap());
    }

    #[test]
    fn no_fields_make_it_panic(fields in vec((select(&["source", "task", "output", "workers", "x"][..]), value()), 0..5)) {
        let fields: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        job::spec(&serde_json::to_vec(&Value::Object(fields)).unwrap());
    }
}

#[test]
fn what_is_changed_was_sound() {
    for files in [true, false] {
        let spec: ShardJobSpec = serde_json::from_value(sound(files)).unwrap();
        assert!(hyperflow_core::job::Job::check(&spec).is_ok());
        job::check(&spec);
    }
}

#[test]
fn numbers_at_either_end_are_refused_or_planned() {
    for start in [i64::MIN, 1 - (1 << 53), (1 << 53) - 1, 1 << 53, i64::MAX] {
        let mut spec = sound(false);
        spec["source"]["numbers"]["start"] = json!(start);
        job::spec(&serde_json::to_vec(&spec).unwrap());
    }
}
