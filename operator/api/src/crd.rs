//! The CustomResourceDefinition as it is committed in `crds/`: what the derive makes, and what it cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::ShardJob;

/// First lines of the committed file.
const HEADER: &str = "# Generated from operator/api/src/shardjob.rs; do not edit. `make crds` writes it again.\n";

/// The definition could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The schema is not what the post-processing expects.
    #[error("cannot make the ShardJob definition as JSON")]
    Json(#[from] serde_json::Error),
    /// The YAML writer failed.
    #[error("cannot write the ShardJob definition as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The definition, complete.
///
/// # Errors
/// When the derived schema has another shape than this function completes.
pub fn shardjob_crd() -> Result<CustomResourceDefinition, CrdError> {
    let mut crd = serde_json::to_value(ShardJob::crd())?;
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["metadata"] = json!({"type": "object"});
    strip_foreign_descriptions(&mut schema["properties"]["spec"]["properties"]["workers"]);
    strip_foreign_descriptions(&mut schema["properties"]["spec"]["properties"]["task"]["properties"]["exec"]);
    drop_null_enum_values(schema);
    bound_resource_lists(&mut schema["properties"]["spec"]["properties"]["workers"]["properties"]["resources"]);
    let status = &mut schema["properties"]["status"];
    // Without it `helm --wait` and Flux report success before any operator has looked.
    status["default"] = json!({"observedGeneration": -1, "display": {"status": "Unseen"}});
    let condition = &mut status["properties"]["conditions"]["items"];
    condition["properties"]["status"]["enum"] = json!(["True", "False", "Unknown"]);
    condition["properties"]["reason"]["minLength"] = json!(1);
    condition["properties"]["reason"]["pattern"] = json!("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$");
    Ok(serde_json::from_value(crd)?)
}

/// The committed file, byte for byte.
///
/// # Errors
/// As [`shardjob_crd`], or when YAML cannot be written.
pub fn shardjob_crd_yaml() -> Result<String, CrdError> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(&shardjob_crd()?)?))
}

/// Kubernetes' own types bring 200 KB of text, more than `kubectl apply` can annotate. Our own fields keep theirs.
fn strip_foreign_descriptions(workers: &mut Value) {
    let Some(fields) = workers["properties"].as_object_mut() else { return };
    for field in fields.values_mut() {
        let own = field.get("description").cloned();
        strip_descriptions(field);
        if let (Some(text), Some(object)) = (own, field.as_object_mut()) {
            object.insert("description".into(), text);
        }
    }
}

fn strip_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// An optional enum lists null, which `kubectl explain` shows as `<no value>`.
fn drop_null_enum_values(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(drop_null_enum_values);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null_enum_values),
        _ => {}
    }
}

fn bound_resource_lists(resources: &mut Value) {
    for list in ["limits", "requests"] {
        let schema = &mut resources["properties"][list];
        schema["additionalProperties"] = Value::Object(Map::from_iter([
            ("x-kubernetes-int-or-string".into(), json!(true)),
            ("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}])),
            ("maxLength".into(), json!(32)),
        ]));
        schema["x-kubernetes-validations"] = json!([{
            "rule": "self.all(k, isQuantity(string(self[k])))",
            "message": "must be quantities such as '500m' or '8Gi' (no space, no 'B')",
            "reason": "FieldValueInvalid",
        }]);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// `UPDATE_CRDS=1 cargo test -p hyperflow-api` writes the file; without it a stale file fails.
    #[test]
    fn the_committed_definition_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds/shardjobs.hyperflow.dev.yaml");
        let generated = shardjob_crd_yaml().unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == generated,
            "crds/ is not what the Rust types say: run `make crds`"
        );
    }

    #[test]
    fn the_definition_is_what_kubectl_can_apply() {
        let json = serde_json::to_string(&shardjob_crd().unwrap()).unwrap();
        assert!(json.len() < 200_000, "{} bytes do not fit the last-applied annotation", json.len());
        for word in ["hostPath", "phase", "\"number\"", "\"format\":\"uint"] {
            assert!(!json.contains(word), "{word} must not be in the schema");
        }
    }

    #[test]
    fn every_field_of_ours_is_described() {
        let crd = serde_json::to_value(shardjob_crd().unwrap()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            for (name, field) in schema[part]["properties"].as_object().unwrap() {
                assert!(field["description"].is_string(), "{part}.{name} has no description");
            }
        }
    }

    #[test]
    fn yaml_that_we_write_reads_back_the_same() {
        let read: Value = serde_yaml::from_str(&shardjob_crd_yaml().unwrap()).unwrap();
        assert_eq!(read, serde_json::to_value(shardjob_crd().unwrap()).unwrap());
    }
}
