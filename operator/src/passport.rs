//! Passports: what a worker shows to the other workers of its job, and what it checks of theirs.
//!
//! A worker that serves blocks sends a public key in its Hello. The operator, which has just been shown who the worker is,
//! signs a certificate for it: of the name of its pod and its job, see [`peer_name`]. The private key never leaves the
//! worker, so that a stolen certificate is worth nothing.
//!
//! [`peer_name`]: hyperflow_api::replica::peer_name

use hyperflow_api::{ids::JobUid, wire::proto};
use rcgen::{PublicKeyData, SignatureAlgorithm};

use crate::{
    authority::{Authority, AuthorityError},
    grants::GrantKey,
};

/// The beginnings of the two kinds of key, all but the key itself: there is one way only to write them in DER.
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// The first byte of a point that is not compressed.
const POINT: u8 = 4;

/// A worker's public key is none that a certificate is signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key of the worker's block server is neither P-256 nor Ed25519 in SubjectPublicKeyInfo, DER")]
pub struct KeyError;

/// The public key of a worker.
#[derive(Clone, Debug)]
pub struct WorkerKey {
    key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl WorkerKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// When it is anything else, or of a kind that workers do not use.
    pub fn read(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(key @ [POINT, point @ ..]) = der.strip_prefix(P256)
            && point.len() == 64
        {
            return Ok(Self { key: key.to_vec(), algorithm: &rcgen::PKCS_ECDSA_P256_SHA256 });
        }
        match der.strip_prefix(ED25519) {
            Some(key) if key.len() == 32 => Ok(Self { key: key.to_vec(), algorithm: &rcgen::PKCS_ED25519 }),
            _ => Err(KeyError),
        }
    }
}

impl PublicKeyData for WorkerKey {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// A passport for the worker of a pod that has proved who it is.
///
/// # Errors
/// When signing fails.
pub fn issue(
    authority: &Authority,
    grants: &GrantKey,
    key: &WorkerKey,
    pod_uid: &str,
    job: &JobUid,
) -> Result<proto::FromOperator, AuthorityError> {
    let certificate_pem = authority.worker(key, pod_uid, job)?;
    let passport = proto::Passport { certificate_pem, grant_key: grants.public() };
    Ok(proto::FromOperator { message: Some(proto::from_operator::Message::Passport(passport)) })
}

#[cfg(test)]
mod tests;
