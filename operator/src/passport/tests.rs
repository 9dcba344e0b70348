//! Two workers meet over TLS, as they will: nothing but their passports and the authority's certificate.

use std::sync::Arc;

use hyperflow_api::replica::peer_name;
use rcgen::KeyPair;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    client::verify_server_name,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
};

use super::*;

struct Worker {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

fn worker(authority: &Authority, pod: &str, job: &str, algorithm: &'static SignatureAlgorithm) -> Worker {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let key = WorkerKey::read(&pair.subject_public_key_info()).unwrap();
    let pem = authority.worker(&key, pod, &JobUid(job.into())).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    Worker {
        chain: vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
        key: PrivateKeyDer::try_from(pair.serialize_der()).unwrap(),
        roots: Arc::new(roots),
    }
}

fn server(worker: &Worker) -> ServerConnection {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&worker.roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(worker.chain.clone(), worker.key.clone_key())
        .unwrap();
    ServerConnection::new(Arc::new(config)).unwrap()
}

fn client(worker: &Worker, name: &str) -> ClientConnection {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(&worker.roots))
        .with_client_auth_cert(worker.chain.clone(), worker.key.clone_key())
        .unwrap();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// Passes what each says to the other, until both are content or one is not.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        server.read_tls(&mut &said[..]).unwrap();
        server.process_new_packets()?;
        let mut said = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut said).unwrap();
        }
        client.read_tls(&mut &said[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn name(pod: &str, job: &str) -> String {
    peer_name(pod, &JobUid(job.into()))
}

const JOB: &str = "0c6f1cc0-6d3a-4a36-b5a4-5f9f0b1a2c3d";
const OTHER: &str = "11111111-6d3a-4a36-b5a4-5f9f0b1a2c3d";
const ONE: &str = "a1b2c3d4-0000-4000-8000-000000000001";
const TWO: &str = "a1b2c3d4-0000-4000-8000-000000000002";

#[test]
fn two_workers_of_one_job_accept_each_other() {
    let authority = Authority::for_tests();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let (one, two) = (worker(&authority, ONE, JOB, algorithm), worker(&authority, TWO, JOB, algorithm));
        let (mut client, mut server) = (client(&one, &name(TWO, JOB)), server(&two));
        shake(&mut client, &mut server).unwrap();
        // The server sees which pod asks: a grant is good for that one alone.
        let shown = server.peer_certificates().unwrap();
        let shown = ParsedCertificate::try_from(&shown[0]).unwrap();
        let is = |name: String| verify_server_name(&shown, &ServerName::try_from(name).unwrap()).is_ok();
        assert!(is(name(ONE, JOB)) && !is(name(TWO, JOB)) && !is(name(ONE, OTHER)));
    }
}

#[test]
fn who_is_of_another_job_or_pod_or_authority_is_not_taken_for_it() {
    let authority = Authority::for_tests();
    let worker = |authority, pod, job| worker(authority, pod, job, &rcgen::PKCS_ECDSA_P256_SHA256);
    let (one, two) = (worker(&authority, ONE, JOB), worker(&authority, TWO, JOB));
    for wanted in [name(TWO, OTHER), name(ONE, JOB), "hyperflow-operator.system.svc".into()] {
        assert!(shake(&mut client(&one, &wanted), &mut server(&two)).is_err(), "{wanted}");
    }
    let stranger = worker(&Authority::for_tests(), ONE, JOB);
    let untrusting = Worker { roots: Arc::clone(&one.roots), ..stranger };
    let refused = shake(&mut client(&untrusting, &name(TWO, JOB)), &mut server(&two));
    assert!(refused.is_err(), "the authority of another installation");
}

#[test]
fn only_the_two_kinds_of_key_are_read_and_only_whole() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let der = KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
        let key = WorkerKey::read(&der).unwrap();
        assert_eq!(key.subject_public_key_info(), der, "it is written as it was read");
        assert_eq!(WorkerKey::read(&der[..der.len() - 1]).err(), Some(KeyError));
        assert_eq!(WorkerKey::read(&[&der[..], &[0]].concat()).err(), Some(KeyError));
        assert_eq!(WorkerKey::read(&der[1..]).err(), Some(KeyError));
    }
    let larger = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().subject_public_key_info();
    assert_eq!(WorkerKey::read(&larger).err(), Some(KeyError));
    assert_eq!(WorkerKey::read(&[]).err(), Some(KeyError));
}

#[test]
fn a_passport_holds_the_certificate_and_the_key_of_grants() {
    let authority = Authority::for_tests();
    let grants = authority.grants().unwrap();
    let pair = KeyPair::generate().unwrap();
    let key = WorkerKey::read(&pair.subject_public_key_info()).unwrap();
    let message = issue(&authority, &grants, &key, ONE, &JobUid(JOB.into())).unwrap().message;
    let Some(proto::from_operator::Message::Passport(passport)) = message else { panic!("{message:?}") };
    assert!(passport.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(passport.grant_key, grants.public());
}
