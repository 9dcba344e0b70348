//! What this worker shows to the other workers of its job, and what it asks of them.
//!
//! Both sides of a connection show a certificate of the operator's authority; each request shows a grant, which the operator
//! signed for one worker and one group. A new session brings a new passport: connections opened from then on use it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use hyperflow_api::{
    ids::JobUid,
    replica::{grant_content, peer_name},
    wire::proto as p,
};
use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use webpki::EndEntityCert;

use super::error::BlockError;
use crate::work::locked;

/// The clock of whoever signed may differ so much.
const SKEW: u64 = 60;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No certificate was shown, or one of another worker or job.
    #[error("the certificate is not that of the worker it names, in this job")]
    Stranger,
    /// It is no grant at all.
    #[error("the grant cannot be read")]
    NoGrant,
    /// It was good once.
    #[error("the grant has ended")]
    Ended,
    /// Of another worker, job or group, or damaged.
    #[error("the grant is not one for this worker and group")]
    Foreign,
    /// No session has brought a passport yet.
    #[error("this worker has no passport yet")]
    NotReady,
}

/// The passport in force, and the key that it is for.
pub struct Passports {
    job: JobUid,
    ca_file: PathBuf,
    key: KeyPair,
    shown: Mutex<Option<Arc<Shown>>>,
}

/// A passport in use.
pub struct Shown {
    /// For connections from others.
    pub server: Arc<ServerConfig>,
    identity: Identity,
    authority: Certificate,
    grant_key: Vec<u8>,
    /// Tells passports apart.
    pub number: u64,
}

fn failed(doing: &'static str, error: &impl ToString) -> BlockError {
    BlockError::Peers { doing, why: error.to_string() }
}

impl Passports {
    /// With a key of this process alone, which is never stored.
    pub fn new(job: JobUid, ca_file: PathBuf) -> Result<Self, BlockError> {
        let key = KeyPair::generate().map_err(|error| failed("make a key", &error))?;
        Ok(Self { job, ca_file, key, shown: Mutex::default() })
    }

    /// What the operator is to certify.
    pub fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// Uses a passport from now on.
    pub fn show(&self, passport: &p::Passport) -> Result<(), BlockError> {
        let authority = std::fs::read(&self.ca_file).map_err(|error| failed("read the authority", &error))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authority) {
            let certificate = certificate.map_err(|error| failed("read the authority", &error))?;
            roots.add(certificate).map_err(|error| failed("trust the authority", &error))?;
        }
        let chain = CertificateDer::pem_slice_iter(passport.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| failed("read the certificate of this worker", &error))?;
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(|error| failed("read the key", &error))?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let verifier = verifier.map_err(|error| failed("trust the authority", &error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("set up TLS", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| failed("use the certificate of this worker", &error))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let identity = Identity::from_pem(&passport.certificate_pem, self.key.serialize_pem());
        let mut shown = locked(&self.shown);
        *shown = Some(Arc::new(Shown {
            server: Arc::new(server),
            identity,
            authority: Certificate::from_pem(authority),
            grant_key: passport.grant_key.clone(),
            number: shown.as_ref().map_or(1, |before| before.number + 1),
        }));
        Ok(())
    }

    /// The passport in force.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        locked(&self.shown).clone()
    }

    /// Whether who shows this certificate is the worker of `pod` and may read the group; `now` in Unix seconds.
    pub fn admit(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
        pod: &str,
        group: u32,
        grant: &str,
        now: u64,
    ) -> Result<(), Refusal> {
        let shown = self.shown().ok_or(Refusal::NotReady)?;
        let certificate = certificates.and_then(<[_]>::first).ok_or(Refusal::Stranger)?;
        let certificate = EndEntityCert::try_from(certificate).map_err(|_unreadable| Refusal::Stranger)?;
        let name = ServerName::try_from(peer_name(pod, &self.job)).map_err(|_no_name| Refusal::Stranger)?;
        certificate.verify_is_valid_for_subject_name(&name).map_err(|_another| Refusal::Stranger)?;
        check_grant(&shown.grant_key, &self.job, pod, group, grant, now)
    }
}

impl Shown {
    /// For connections to the worker of a pod of the job.
    pub fn client(&self, pod: &str, job: &JobUid) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().ca_certificate(self.authority.clone()).identity(self.identity.clone());
        tls.domain_name(peer_name(pod, job))
    }
}

fn check_grant(key: &[u8], job: &JobUid, pod: &str, group: u32, grant: &str, now: u64) -> Result<(), Refusal> {
    let (end, signature) = grant.split_once('.').ok_or(Refusal::NoGrant)?;
    let end: u64 = end.parse().map_err(|_no_number| Refusal::NoGrant)?;
    let signature = unhex(signature).filter(|bytes| bytes.len() == 64).ok_or(Refusal::NoGrant)?;
    let content = grant_content(job, pod, group, end);
    let checked = UnparsedPublicKey::new(&ED25519, key).verify(&content, &signature);
    checked.map_err(|_not_signed| Refusal::Foreign)?;
    if now <= end.saturating_add(SKEW) { Ok(()) } else { Err(Refusal::Ended) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}
