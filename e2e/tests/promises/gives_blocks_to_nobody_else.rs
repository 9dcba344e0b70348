//! A pod of another namespace gets no block of a job: without a certificate, with one that nobody knows, with one of another
//! job's worker, and with one of the job's own worker but no grant of the operator.

use std::{net::UdpSocket, os::fd::AsFd, thread, time::Duration};

use hyperflow_api::{
    ids::JobUid,
    replica::peer_name,
    wire::proto::{FetchBlock, blocks_client::BlocksClient},
};
use hyperflow_e2e::{Result, cluster::Place, ensure, process};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt, api::PostParams};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tonic::{
    Code, Status,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use super::{gated, open_gate};

const MIB: usize = 1 << 20;
const SHARDS: u32 = 8;
const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 7701;

/// What a stranger got.
#[derive(Debug)]
enum Got {
    /// No connection.
    NoEntry(#[allow(dead_code, reason = "it is shown")] String),
    /// The worker's own no.
    Refused(Status),
    /// Something of the block.
    Bytes,
}

pub async fn keeps(place: &Place) -> Result {
    place.write_input("input", SHARDS as usize * MIB, 98)?;
    let job = place.apply(gated("secret", 2, 2)).await?;
    place.replicated(&job, SHARDS, 2, &[], LIMIT).await?;
    let uid = JobUid(job.get().await?.uid().ok_or("a job without UID")?);
    let replica = place.replicas(&job).await?.into_iter().next().ok_or("no replica")?;
    let (authority, key) = authority(place).await?;
    let worker = place.workers().await?.into_iter().next().ok_or("no worker")?;
    let pod = worker.uid().ok_or("a pod without UID")?;
    let address = worker.status.and_then(|status| status.pod_ip).ok_or("a worker without address")?;
    let wanted = FetchBlock {
        pod: pod.clone(),
        grant: format!("{}.{}", i64::MAX, "0".repeat(128)),
        group: 0,
        shard: replica.shard,
        part: replica.part,
        version: u64::from_str_radix(&replica.version, 16)?,
        offset: 0,
    };
    let name = peer_name(&pod, &uid);
    let tls = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority)).domain_name(&name);
    let (own, own_key) = self_signed(&name)?;
    let other = peer_name(&pod, &JobUid("11111111-2222-3333-4444-555555555555".into()));
    let faces = vec![
        tls(),
        tls().identity(Identity::from_pem(own, own_key)),
        tls().identity(signed(&authority, &key, &other)?),
        tls().identity(signed(&authority, &key, &name)?),
    ];
    let elsewhere = place.cluster.place("stranger").await?;
    let got = ask_as_stranger(&elsewhere, address, faces, wanted).await;
    elsewhere.remove().await?;
    let [without, own, other, without_grant] = &got?[..] else { return Err("not every question was answered".into()) };
    ensure(!matches!(without, Got::Bytes), || format!("without a certificate: {without:?}"))?;
    ensure(!matches!(own, Got::Bytes), || format!("with a certificate of its own making: {own:?}"))?;
    let no = |got: &Got| matches!(got, Got::Refused(status) if status.code() == Code::PermissionDenied);
    ensure(no(other), || format!("as a worker of another job: {other:?}"))?;
    // The way there is right: the worker itself says no, and why.
    ensure(no(without_grant), || format!("without a grant: {without_grant:?}"))?;
    println!("     refused by name: {without_grant:?}");
    open_gate(place)?;
    job.complete(LIMIT).await.map(drop)
}

/// Asks with each of these faces from a pod in that namespace, which has nothing to do with the job.
async fn ask_as_stranger(
    place: &Place,
    address: String,
    faces: Vec<ClientTlsConfig>,
    wanted: FetchBlock,
) -> Result<Vec<Got>> {
    let pod = stranger(place).await?;
    let network = process::network(&pod)?;
    let own = pod.status.and_then(|status| status.pod_ip).ok_or("a stranger without address")?;
    // A thread can go into the pod's network, and must not come back to serve others.
    let asked = thread::spawn(move || -> Result<Vec<Got>> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let probe = UdpSocket::bind("0.0.0.0:0")?;
        probe.connect((&*address, PORT))?;
        let from = probe.local_addr()?.ip().to_string();
        ensure(from == own, || format!("asked from {from}, and not from the pod's {own}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut got = Vec::new();
            for face in faces {
                got.push(fetch(&address, face, wanted.clone()).await?);
            }
            Ok(got)
        })
    });
    tokio::task::spawn_blocking(move || asked.join()).await?.map_err(|_| "the stranger's thread panicked")?
}

/// A pod that runs.
async fn stranger(place: &Place) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(place.cluster.client.clone(), &place.namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(super::idle("stranger"))?).await?;
    let runs = |pod: &Pod| {
        pod.status.as_ref().is_some_and(|status| {
            status.pod_ip.is_some() && status.container_statuses.iter().flatten().any(|container| container.ready)
        })
    };
    let running = async {
        loop {
            let pod = pods.get("stranger").await?;
            if runs(&pod) {
                return Ok(pod);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(LIMIT, running).await.map_err(|_| "the stranger's pod does not run")?
}

async fn fetch(address: &str, tls: ClientTlsConfig, wanted: FetchBlock) -> Result<Got> {
    let endpoint = Endpoint::from_shared(format!("https://{address}:{PORT}"))?.tls_config(tls)?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(10));
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return Ok(Got::NoEntry(format!("{error:?}"))),
    };
    let mut parts = match BlocksClient::new(channel).fetch(wanted).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::PermissionDenied => return Ok(Got::Refused(status)),
        Err(status) => return Ok(Got::NoEntry(format!("{status:?}"))),
    };
    match parts.message().await {
        Ok(Some(_)) => Ok(Got::Bytes),
        Ok(None) => Ok(Got::NoEntry("nothing came".into())),
        Err(status) => Ok(Got::Refused(status)),
    }
}

/// Certificate and key of the operator's authority, which an administrator may read.
async fn authority(place: &Place) -> Result<(String, String)> {
    let secrets: Api<Secret> = Api::namespaced(place.cluster.client.clone(), &place.cluster.operator_namespace);
    let data = secrets.get("hyperflow-ca").await?.data.unwrap_or_default();
    let text = |name: &str| -> Result<String> {
        let bytes = data.get(name).ok_or_else(|| format!("no '{name}' in the secret of the authority"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    };
    Ok((text("tls.crt")?, text("tls.key")?))
}

fn request(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn self_signed(name: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((request(name)?.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn signed(authority: &str, authority_key: &str, name: &str) -> Result<Identity> {
    let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(authority_key)?)?;
    let key = KeyPair::generate()?;
    Ok(Identity::from_pem(request(name)?.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}
