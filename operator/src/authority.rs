//! The certificate authority that workers trust. Its key is one Secret in the operator's own namespace, the only Secret
//! that the operator may read; its certificate goes to workers in a ConfigMap per job.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::error::KeyRejected;
use hyperflow_api::{ids::JobUid, replica::peer_name};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth},
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use tonic::transport::Identity;
use tracing::{info, warn};

use crate::{
    client::{CallError, call},
    credential::Mint,
    grants::GrantKey,
    passport::WorkerKey,
    telemetry::chain,
};

/// Name of the Secret.
const SECRET: &str = "hyperflow-ca";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// How long the authority is valid.
const TEN_YEARS: Duration = Duration::from_secs(3652 * 86_400);
/// How long a certificate of a server or of a worker is valid.
const THIRTY_DAYS: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin a little in the past, for clocks that are late.
const LATE_CLOCKS: Duration = Duration::from_secs(3600);
/// After so long they are made anew.
pub const RENEW_AFTER: Duration = Duration::from_secs(20 * 86_400);
/// The pause between attempts to get at the Secret.
const PAUSE: Duration = Duration::from_secs(1);

/// There is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret cannot be read or written.
    #[error("cannot get at the certificate authority")]
    Secret(#[from] CallError),
    /// The Secret holds something else.
    #[error(
        "cannot find '{0}' in secret '{SECRET}'; delete the secret and restart the operator to get a new authority"
    )]
    Missing(&'static str),
    /// Making or reading a certificate failed.
    #[error("cannot {action}")]
    Certificate {
        /// What we were doing.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// No key for grants.
    #[error("cannot derive the key that grants are signed with")]
    Grants(#[from] KeyRejected),
}

/// An authority that can sign.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority of this installation. The replica that comes first makes it; the others read what it made.
    /// Waits for the API server as long as it does not answer.
    ///
    /// # Errors
    /// When the API server refuses, or the Secret is not an authority.
    pub async fn of_installation(client: Client, namespace: &str) -> Result<Self, AuthorityError> {
        let secrets = Api::namespaced(client, namespace);
        loop {
            match Self::read_or_create(&secrets).await {
                Err(AuthorityError::Secret(error)) if !error.is_refusal() => {
                    warn!(error = chain(&error), "the certificate authority is not there yet");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn read_or_create(secrets: &Api<Secret>) -> Result<Self, AuthorityError> {
        if let Some(secret) = call("get secret", SECRET, secrets.get_opt(SECRET)).await? {
            return Self::read(&secret);
        }
        let (certificate, key) = new_authority()?;
        let data = [(CERTIFICATE, certificate.clone()), (KEY, key.serialize_pem())];
        let secret = Secret {
            metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".into()),
            data: Some(data.map(|(name, pem)| (name.into(), ByteString(pem.into_bytes()))).into()),
            ..Secret::default()
        };
        match call("create secret", SECRET, secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => {
                info!(secret = SECRET, "made a certificate authority");
                Self::new(certificate, key)
            }
            // Another replica was first: its authority is ours.
            Err(error) if error.is_conflict() => Self::read(&call("get secret", SECRET, secrets.get(SECRET)).await?),
            Err(error) => Err(error.into()),
        }
    }

    fn read(secret: &Secret) -> Result<Self, AuthorityError> {
        let none = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&none);
        let text = |name: &'static str| {
            let bytes = data.get(name).map(|bytes| bytes.0.clone());
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(AuthorityError::Missing(name))
        };
        let key = KeyPair::from_pem(&text(KEY)?).map_err(|source| failed("read the authority's key", source))?;
        Self::new(text(CERTIFICATE)?, key)
    }

    fn new(certificate: String, key: KeyPair) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(|source| failed("read the authority's certificate", source))?;
        Ok(Self { certificate, issuer })
    }

    /// The certificate that workers trust, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Gives and knows the credentials of this authority's installation.
    #[must_use]
    pub fn mint(&self) -> Mint {
        Mint::new(self.issuer.key().serialized_der())
    }

    /// The key that grants are signed with in this authority's installation.
    ///
    /// # Errors
    /// When the cryptography does not take it.
    pub fn grants(&self) -> Result<GrantKey, AuthorityError> {
        Ok(GrantKey::new(self.issuer.key().serialized_der())?)
    }

    /// A certificate for a worker's public key, as PEM: by it the other workers of the job know the worker of that pod.
    ///
    /// # Errors
    /// When signing fails.
    pub fn worker(&self, key: &WorkerKey, pod_uid: &str, job: &JobUid) -> Result<String, AuthorityError> {
        let sign = |source| failed("sign a worker's certificate", source);
        // Nobody reads the common name, and the whole name is longer than the 64 characters that it may have.
        let worker = member(&peer_name(pod_uid, job), pod_uid, &[ServerAuth, ClientAuth]).map_err(sign)?;
        Ok(worker.signed_by(key, &self.issuer).map_err(sign)?.pem())
    }

    /// A new authority, for tests.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        let (certificate, key) = new_authority().unwrap();
        Self::new(certificate, key).unwrap()
    }

    /// A new key and certificate for a server of that name. Lives in memory only.
    ///
    /// # Errors
    /// When the name is none, or signing fails.
    pub fn server(&self, name: &str) -> Result<Identity, AuthorityError> {
        let sign = |source| failed("sign a server certificate", source);
        let key = KeyPair::generate().map_err(|source| failed("make a server key", source))?;
        let server = member(name, name, &[ServerAuth]).map_err(sign)?;
        let certificate = server.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(Identity::from_pem(certificate.pem(), key.serialize_pem()))
    }
}

/// A certificate of somebody by that name.
fn member(
    name: &str,
    common_name: &str,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<CertificateParams, rcgen::Error> {
    let mut member = CertificateParams::new([name.to_owned()])?;
    member.distinguished_name = named(common_name);
    member.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    member.extended_key_usages = usages.to_vec();
    member.use_authority_key_identifier_extension = true;
    set_validity(&mut member, THIRTY_DAYS);
    Ok(member)
}

fn new_authority() -> Result<(String, KeyPair), AuthorityError> {
    let make = |source| failed("make a certificate authority", source);
    let key = KeyPair::generate().map_err(make)?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name = named("hyperflow");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut authority, TEN_YEARS);
    Ok((authority.self_signed(&key).map_err(make)?.pem(), key))
}

fn failed(action: &'static str, source: rcgen::Error) -> AuthorityError {
    AuthorityError::Certificate { action, source }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(certificate: &mut CertificateParams, length: Duration) {
    let now = OffsetDateTime::now_utc();
    certificate.not_before = now - LATE_CLOCKS;
    certificate.not_after = now + length;
}

#[cfg(test)]
mod tests {
    use hyperflow_api::{
        ids::{JobUid, WorkerId},
        message::{Hello, PROTOCOL},
    };

    use super::*;

    #[test]
    fn an_authority_that_was_stored_signs_after_it_was_read_back() {
        let (certificate, key) = new_authority().unwrap();
        let data = [(CERTIFICATE, certificate.clone()), (KEY, key.serialize_pem())];
        let maker = Authority::new(certificate.clone(), key).unwrap();
        let data = data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes()))).into();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let authority = Authority::read(&secret).unwrap();
        assert_eq!(authority.certificate(), certificate);
        assert!(authority.server("hyperflow-operator.system.svc").is_ok());

        // The replica that made it and one that starts later give and accept the same credentials.
        let worker = WorkerId { pod_uid: "pod-1".into(), nonce: 1 };
        let job = JobUid("job-1".into());
        let hello = Hello { protocol: PROTOCOL, job, worker, slots: 1, held: Vec::new(), heard: 0, host: None };
        let given = |authority: &Authority| authority.mint().give(&hello, "team-a", 1_800_000_000);
        assert_eq!(given(&maker), given(&authority));
        let (certificate, key) = new_authority().unwrap();
        let other = Authority::new(certificate, key).unwrap();
        assert_ne!(given(&other), given(&authority));
    }

    #[test]
    fn a_secret_that_holds_something_else_is_named() {
        let error = Authority::read(&Secret::default()).err().unwrap();
        assert!(error.to_string().contains("'tls.key'"), "{error}");
    }
}
