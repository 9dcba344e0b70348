//! The administrator's volume for blocks, as JSON.

use k8s_openapi::api::core::v1::Volume;
use serde_json::{Map, Value};

/// A text names no volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It is no JSON, or no object.
    #[error("cannot read the volume as a JSON object")]
    Json(#[from] serde_json::Error),
    /// It has no source, or several.
    #[error(
        "must have one volume source and nothing else, such as {{\"persistentVolumeClaim\":{{\"claimName\":\"blocks\"}}}}"
    )]
    NotOne,
    /// The source is not one of Kubernetes'.
    #[error("'{0}' is no volume source of Kubernetes")]
    Unknown(String),
    /// The source's fields are not sound.
    #[error("cannot read the volume source '{source_name}'")]
    Fields {
        /// Which.
        source_name: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

/// A volume that is the same in every pod that keeps blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct BlocksVolume(Volume);

impl BlocksVolume {
    /// Reads a Kubernetes volume without its name.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(text: &str) -> Result<Self, VolumeError> {
        let mut fields: Map<String, Value> = serde_json::from_str(text)?;
        let mut names = fields.keys();
        let (Some(name), None) = (names.next().cloned(), names.next()) else { return Err(VolumeError::NotOne) };
        if name == "name" {
            return Err(VolumeError::NotOne);
        }
        fields.insert("name".into(), "".into());
        let fields_failed = |source| VolumeError::Fields { source_name: name.clone(), source };
        let volume: Volume = serde_json::from_value(fields.into()).map_err(fields_failed)?;
        // Fields that nobody knows are not read, and are gone when the volume is written again.
        let written = serde_json::to_value(&volume).map_err(fields_failed)?;
        if written.get(&name).is_none() {
            return Err(VolumeError::Unknown(name));
        }
        Ok(Self(volume))
    }

    /// The volume, without a name.
    #[must_use]
    pub fn source(&self) -> Volume {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_source_of_kubernetes_is_taken() {
        let volume = BlocksVolume::read(r#"{"hostPath":{"path":"/var/blocks","type":"Directory"}}"#).unwrap().source();
        assert_eq!(volume.host_path.unwrap().path, "/var/blocks");
        let volume = BlocksVolume::read(r#"{"persistentVolumeClaim":{"claimName":"blocks"}}"#).unwrap().source();
        assert_eq!(volume.persistent_volume_claim.unwrap().claim_name, "blocks");
    }

    #[test]
    fn anything_else_is_refused_with_its_name() {
        for (text, said) in [
            ("", "JSON"),
            ("[]", "JSON"),
            ("{}", "one volume source"),
            (r#"{"name":"x"}"#, "one volume source"),
            (r#"{"name":"x","emptyDir":{}}"#, "one volume source"),
            (r#"{"hostpath":{"path":"/x"}}"#, "'hostpath'"),
            (r#"{"hostPath":{"path":7}}"#, "'hostPath'"),
            (r#"{"hostPath":"/x"}"#, "'hostPath'"),
        ] {
            let error = BlocksVolume::read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
