//! Workers with real stores, real files and real TLS.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use hyperflow_api::{
    ids::{JobUid, WorkerId},
    message::PlanRef,
    replica::{BlockOrder, Dropped, GroupHeld, Holdings, Peer, Trouble, grant_content, peer_name},
    wire::proto as p,
};
use hyperflow_core::{blocks::blocks_of, worker::Event};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::mpsc};

use super::{Keeper, error::BlockError, passport::Refusal, replica::Name, serve, settings::BlockSettings, upkeep};
use crate::{
    tests::{Volume, names, noise, refused, run},
    work::Work,
};

const ONE: &str = "0d1f3c2a-0000-4000-8000-000000000001";
const TWO: &str = "0d1f3c2a-0000-4000-8000-000000000002";

/// A job, an operator's keys, and a network.
struct Ground {
    volume: Volume,
    ca_file: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    grants: Ed25519KeyPair,
    runtime: Runtime,
}

/// A worker of it.
struct Pod {
    uid: &'static str,
    keeper: Arc<Keeper>,
    work: Arc<Work>,
    events: mpsc::Receiver<Event>,
    _disk: TempDir,
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Ground {
    fn new(mut volume: Volume) -> Self {
        let authority = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&authority).unwrap();
        let ca_file = volume.path("ca.crt");
        fs::write(&ca_file, root.pem()).unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        volume.spec["blocks"] = json!({});
        Self {
            volume,
            ca_file,
            issuer: rcgen::Issuer::new(parameters, authority),
            grants: Ed25519KeyPair::generate().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        }
    }

    fn job(&self) -> JobUid {
        JobUid(self.volume.uid.into())
    }

    fn certificate(&self, public_key: &[u8], name: &str) -> String {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let mut parameters = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        parameters.extended_key_usages = vec![ServerAuth, ClientAuth];
        let key = rcgen::SubjectPublicKeyInfo::from_der(public_key).unwrap();
        parameters.signed_by(&key, &self.issuer).unwrap().pem()
    }

    fn passport(&self, public_key: &[u8], pod: &str) -> p::Passport {
        let certificate_pem = self.certificate(public_key, &peer_name(pod, &self.job()));
        p::Passport { certificate_pem, grant_key: self.grants.public_key().as_ref().to_vec() }
    }

    fn grant(&self, pod: &str, group: u32, end: u64) -> String {
        let signature = self.grants.sign(&grant_content(&self.job(), pod, group, end));
        let digits: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{end}.{digits}")
    }

    fn pod(&self, uid: &'static str, limit: Option<u64>) -> Pod {
        self.pod_with(uid, limit, 0)
    }

    fn pod_with(&self, uid: &'static str, limit: Option<u64>, rate: u64) -> Pod {
        let disk = tempfile::tempdir().unwrap();
        let settings = BlockSettings {
            blocks_dir: Some(disk.path().into()),
            blocks_listen: "127.0.0.1:0".parse().unwrap(),
            pod_ip: Some("127.0.0.1".parse().unwrap()),
            blocks_persistent: true,
            blocks_limit: limit,
            blocks_rate: rate,
        };
        let (sender, events) = mpsc::channel(1024);
        let me = WorkerId { pod_uid: uid.into(), nonce: 1 };
        let (who, handle) = ((&self.job(), &me), self.runtime.handle().clone());
        let keeper = Keeper::open(&settings, who, self.ca_file.clone(), Arc::default(), sender, handle);
        let keeper = keeper.unwrap().unwrap();
        keeper.show(&self.passport(&keeper.host().public_key, uid));
        let (serving, listener) = (keeper.clone(), keeper.listener().unwrap());
        self.runtime.spawn(async move { serve::run(serving, listener).await.unwrap() });
        let work = Arc::new(self.volume.planned(1).with_keeper(Some(keeper.clone())));
        let digest = work.plan_in_force().unwrap().plan().digest().to_owned();
        keeper.survey(&work, &digest);
        let mut pod = Pod { uid, keeper, work, events, _disk: disk };
        assert!(pod.news(|holdings| holdings.full).groups.is_empty());
        pod
    }
}

impl Pod {
    fn news(&mut self, wanted: impl Fn(&Holdings) -> bool) -> Holdings {
        loop {
            match self.events.blocking_recv().unwrap() {
                Event::Stocked(holdings) if wanted(&holdings) => return holdings,
                Event::Stocked(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn peer(&self) -> Peer {
        Peer { pod: self.uid.into(), address: self.keeper.host().address }
    }

    fn load(&mut self, group: u32, from: Vec<Peer>, source: bool, grant: String) -> Holdings {
        let order = u64::from(group) + 100;
        self.keeper.obey(&self.work, BlockOrder::Load { group, order, from, source, grant });
        self.news(|holdings| holdings.ended.iter().any(|ended| ended.order == order))
    }

    fn load_all(&mut self, groups: u32) {
        for group in 0..groups {
            let told = self.load(group, Vec::new(), true, String::new());
            assert_eq!(told.ended[0].trouble, None);
            assert_eq!(told.groups[0].good, told.groups[0].blocks);
        }
    }

    fn name(&self, shard: u32) -> Name {
        let plan = self.work.plan_in_force().unwrap();
        Name::of(&blocks_of(shard, &plan.shard(shard).unwrap().unwrap())[0], plan.plan().shards())
    }

    fn path(&self, shard: u32) -> PathBuf {
        let name = self.name(shard);
        self.keeper.disk().folder().join(name.group.to_string()).join(name.file())
    }

    /// Flips a bit of a block's data on the disk.
    fn flip(&self, shard: u32) {
        let file = OpenOptions::new().read(true).write(true).open(self.path(shard)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 100).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 100).unwrap();
    }

    /// Asks a peer for a block as `grant` allows, and says what came of it.
    fn ask(&self, shard: u32, from: &Pod, grant: &str) -> Result<(), String> {
        let name = self.name(shard);
        let mut writing = self.keeper.disk().borrow(name, 4096).unwrap();
        let got = self.keeper.peers().get(&[from.peer()], grant, &mut writing, false, &|| Ok(()));
        got.map_err(|error| error.to_string())
    }

    fn read(&self, from: &'static str) -> u64 {
        let labels = super::metrics::Bytes { from, r#for: "task" };
        self.keeper.metrics().blocks.bytes.get_or_create(&labels).get()
    }

    fn temporary(&self) -> Vec<String> {
        names(&self.keeper.disk().folder().join("tmp"))
    }
}

fn two_shards() -> Ground {
    Ground::new(Volume::new(&noise(8192), "4Ki"))
}

#[test]
fn a_group_is_loaded_from_the_source_and_read_from_the_disk() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, None);
    let told = pod.load(1, Vec::new(), true, String::new());
    let ended = &told.ended[0];
    assert_eq!((ended.from_peers, ended.from_source, &ended.trouble), (0, 4096, &None));
    let GroupHeld { group, blocks, good, bytes, digest, .. } = told.groups[0];
    assert_eq!((group, blocks, good, bytes), (1, 1, 1, 4096));
    assert_ne!(digest, 0);
    assert!(pod.temporary().is_empty());
    run(&pod.work, 1, 10, None).unwrap();
    assert_eq!(fs::read(ground.volume.path("out/part-000001")).unwrap(), &noise(8192)[4096..]);
    assert_eq!((pod.read("local"), pod.read("source")), (4096, 0));
    run(&pod.work, 0, 11, None).unwrap();
    assert_eq!((pod.read("local"), pod.read("source")), (4096, 4096), "of what nobody has, the source is read");
    let text = pod.keeper.metrics().encode().unwrap();
    assert!(text.contains("hyperflow_worker_block_bytes_total{from=\"source\",for=\"load\"} 4096"), "{text}");
    assert!(text.contains("hyperflow_worker_blocks{state=\"ready\"} 1"), "{text}");
}

#[test]
fn a_flipped_bit_is_found_and_never_read() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, None);
    pod.load_all(2);
    pod.flip(0);
    run(&pod.work, 0, 10, None).unwrap();
    assert_eq!(fs::read(ground.volume.path("out/part-000000")).unwrap(), &noise(8192)[..4096]);
    let told = pod.news(|holdings| holdings.groups.iter().any(|held| held.corrupt > 0));
    assert_eq!((told.groups[0].group, told.groups[0].good, told.groups[0].corrupt), (0, 0, 1));
    assert!(!pod.path(0).exists());
    // The next load gets it again, and then the damaged one goes.
    let told = pod.load(0, Vec::new(), true, String::new());
    assert_eq!((told.groups[0].good, told.groups[0].corrupt), (1, 0));
    // One that was sound when it was opened is found by the scrub.
    pod.flip(1);
    upkeep::scrub(&pod.keeper).unwrap();
    let told = pod.news(|holdings| holdings.groups.iter().any(|held| held.corrupt > 0));
    assert_eq!(told.groups[0].group, 1);
}

#[test]
fn replicas_of_another_version_are_stale_and_go_when_told() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, None);
    pod.load_all(1);
    // As another plan left it: a sound header of another version.
    let name = Name { version: 7, ..pod.name(0) };
    let mut writing = pod.keeper.disk().begin(name, 3).unwrap();
    writing.append(b"old").unwrap();
    pod.keeper.disk().keep(writing).unwrap();
    let held = pod.keeper.view(&pod.work, 0).unwrap().held;
    assert_eq!((held.good, held.stale, held.corrupt), (1, 1, 0));
    pod.keeper.obey(&pod.work, BlockOrder::Drop { group: 0, what: Dropped::Outdated });
    let told = pod.news(|holdings| holdings.groups.iter().any(|held| held.group == 0 && held.stale == 0));
    assert_eq!(told.groups[0].good, 1);
    pod.keeper.obey(&pod.work, BlockOrder::Drop { group: 0, what: Dropped::Surplus });
    pod.news(|holdings| holdings.groups.iter().any(|held| held.group == 0 && held.good == 0));
}

#[test]
fn a_full_store_says_so_and_leaves_nothing_half_written() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, Some(4096 + 200));
    assert_eq!(pod.load(0, Vec::new(), true, String::new()).ended[0].trouble, None);
    let told = pod.load(1, Vec::new(), true, String::new());
    assert_eq!(told.ended[0].trouble.as_ref().unwrap().reason, Trouble::FULL);
    assert!(pod.temporary().is_empty() && told.free < 4096);
    run(&pod.work, 1, 10, None).unwrap();
}

#[test]
fn a_block_comes_from_a_peer_for_a_load_and_for_a_task() {
    let ground = two_shards();
    let (mut one, mut two) = (ground.pod(ONE, None), ground.pod(TWO, None));
    one.load_all(2);
    let grant = ground.grant(TWO, 0, unix() + 60);
    let told = two.load(0, vec![one.peer()], false, grant);
    let ended = &told.ended[0];
    assert_eq!((ended.from_peers, ended.from_source, &ended.trouble), (4096, 0, &None));
    assert_eq!(told.groups[0].digest, one.keeper.view(&one.work, 0).unwrap().held.digest);
    let grant = ground.grant(TWO, 1, unix() + 60);
    two.keeper.obey(&two.work, BlockOrder::Access { group: 1, from: vec![one.peer()], grant });
    fs::remove_file(ground.volume.path("in/data")).unwrap();
    run(&two.work, 1, 10, None).unwrap();
    assert_eq!(fs::read(ground.volume.path("out/part-000001")).unwrap(), &noise(8192)[4096..]);
    assert_eq!((two.read("peer"), two.read("local"), two.read("source")), (4096, 0, 0));
    assert!(two.temporary().is_empty() && !two.path(1).exists(), "it is not kept");
}

#[test]
fn copies_keep_to_their_rate_and_no_task_waits_for_it() {
    let ground = two_shards();
    // A block in two seconds.
    let (mut one, mut two) = (ground.pod(ONE, None), ground.pod_with(TWO, None, 2048));
    one.load_all(2);
    let (first, second) = (ground.grant(TWO, 0, unix() + 60), ground.grant(TWO, 1, unix() + 60));
    two.load(0, vec![one.peer()], false, first);
    let began = Instant::now();
    assert_eq!(two.ask(1, &one, &second), Ok(()));
    assert!(began.elapsed() < Duration::from_millis(1500), "a task waited for {:?}", began.elapsed());
    let told = two.load(1, vec![one.peer()], false, second);
    assert_eq!((told.ended[0].from_peers, &told.ended[0].trouble), (4096, &None));
    assert!(began.elapsed() >= Duration::from_millis(1800), "copied after {:?}", began.elapsed());
}

#[test]
fn programs_get_files_and_directories_as_they_were_planned() {
    for (input, files_per_shard, script, results) in [
        ("File", 1, "cat $HYPERFLOW_INPUT", &["one\n", "second\n"][..]),
        ("Directory", 5, "cd $HYPERFLOW_INPUT; cat data deep/b", &["one\nsecond\n"]),
    ] {
        let mut volume = Volume::new(b"one\n", "4Ki");
        fs::create_dir(volume.path("in/deep")).unwrap();
        fs::write(volume.path("in/deep/b"), "second\n").unwrap();
        let url = format!("file://{}/", volume.path("in").display());
        volume.spec["source"] = json!({"files": {"url": url, "boundary": "File", "filesPerShard": files_per_shard}});
        let command = ["sh", "-c", script];
        let exec = json!({"image": "registry.example/tool:1", "command": command, "input": input, "output": "Stdout"});
        volume.spec["task"] = json!({"exec": exec});
        let ground = Ground::new(volume);
        let mut pod = ground.pod(ONE, None);
        pod.load_all(u32::try_from(results.len()).unwrap());
        fs::remove_dir_all(ground.volume.path("in")).unwrap();
        for (index, result) in (0..).zip(results) {
            run(&pod.work, index, 10 + u64::from(index), None).unwrap();
            let made = fs::read_to_string(ground.volume.path(&format!("out/part-{index:06}"))).unwrap();
            assert_eq!(made, *result, "{input}");
        }
        assert_eq!(pod.read("source"), 0);
    }
}

#[test]
fn only_a_worker_of_the_job_with_a_grant_for_the_group_gets_blocks() {
    let ground = two_shards();
    let (mut one, two) = (ground.pod(ONE, None), ground.pod(TWO, None));
    one.load_all(2);
    let good = ground.grant(TWO, 0, unix() + 60);
    assert_eq!(two.ask(0, &one, &good), Ok(()));
    let other = if good.ends_with('0') { "1" } else { "0" };
    let flipped = format!("{}{other}", &good[..good.len() - 1]);
    let bad = [
        ground.grant(ONE, 0, unix() + 60),
        ground.grant(TWO, 1, unix() + 60),
        ground.grant(TWO, 0, unix() - 120),
        flipped,
        String::new(),
        format!("{}.zz", unix() + 60),
    ];
    for grant in &bad {
        let refused = two.ask(0, &one, grant).unwrap_err();
        assert!(refused.contains("PermissionDenied"), "{grant}: {refused}");
    }
    assert_eq!(one.keeper.metrics().blocks.refused.get(), bad.len() as u64);
}

#[test]
fn a_certificate_is_good_for_its_own_pod_and_job_alone() {
    let ground = two_shards();
    let (one, two) = (ground.pod(ONE, None), ground.pod(TWO, None));
    let grant = ground.grant(TWO, 0, unix() + 60);
    let admit = |name: &str| {
        let pem = ground.certificate(&two.keeper.host().public_key, name);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        one.keeper.peers().passports.admit(Some(&[certificate]), TWO, 0, &grant, unix())
    };
    assert_eq!(admit(&peer_name(TWO, &ground.job())), Ok(()));
    assert_eq!(admit(&peer_name(ONE, &ground.job())), Err(Refusal::Stranger));
    assert_eq!(admit(&peer_name(TWO, &JobUid("another".into()))), Err(Refusal::Stranger));
    assert_eq!(one.keeper.peers().passports.admit(None, TWO, 0, &grant, unix()), Err(Refusal::Stranger));
}

#[test]
fn without_a_certificate_there_is_no_connection() {
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
    let ground = two_shards();
    let mut one = ground.pod(ONE, None);
    one.load_all(1);
    let authority = Certificate::from_pem(fs::read(&ground.ca_file).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name(peer_name(ONE, &ground.job()));
    let name = one.name(0);
    let request = p::FetchBlock {
        pod: TWO.into(),
        grant: ground.grant(TWO, 0, unix() + 60),
        group: 0,
        shard: 0,
        part: 0,
        version: name.version,
        offset: 0,
    };
    let address = format!("https://{}", one.keeper.host().address);
    let got = ground.runtime.block_on(async {
        let channel = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect().await;
        let channel = channel.map_err(|error| error.to_string())?;
        let mut client = p::blocks_client::BlocksClient::new(channel);
        client.fetch(request).await.map(drop).map_err(|status| status.to_string())
    });
    assert!(got.is_err());
}

#[test]
fn a_stream_that_was_cut_goes_on_where_it_was_and_damage_is_not_taken() {
    let ground = two_shards();
    let (mut one, two) = (ground.pod(ONE, None), ground.pod(TWO, None));
    one.load_all(1);
    let grant = ground.grant(TWO, 0, unix() + 60);
    let crc = one.keeper.disk().head(&one.name(0)).unwrap().unwrap().crc32c;
    let get = |first: &[u8], promised: u32| {
        let mut writing = two.keeper.disk().borrow(two.name(0), 4096).unwrap();
        writing.append(first).unwrap();
        assert!(writing.promise(promised));
        let got = two.keeper.peers().get(&[one.peer()], &grant, &mut writing, false, &|| Ok(()));
        got.map(|()| writing.lend().unwrap())
    };
    let replica = get(&noise(8192)[..1000], crc).unwrap();
    let mut bytes = vec![0; 4096];
    replica.read(&mut bytes, 0).unwrap();
    assert_eq!(bytes, &noise(8192)[..4096]);
    assert!(matches!(get(&[0; 1000], crc), Err(BlockError::NoCopy { .. })), "what came before was damaged");
    assert!(matches!(get(&noise(8192)[..1000], crc ^ 1), Err(BlockError::NoCopy { .. })), "they disagree");
    // Verified when it was sent first: what is flipped afterwards is noticed while it is sent.
    one.flip(0);
    assert!(matches!(get(b"", crc), Err(BlockError::NoCopy { .. })));
    one.news(|holdings| holdings.groups.iter().any(|held| held.corrupt > 0));
    assert!(!one.path(0).exists() && two.temporary().is_empty());
}

#[test]
fn a_changed_source_fails_or_does_not_matter_as_the_job_says() {
    for (on_change, goes_on) in [("Fail", false), ("UseBlocks", true)] {
        let mut volume = Volume::new(&noise(8192), "4Ki");
        volume.spec["source"]["files"]["onChange"] = json!(on_change);
        let ground = Ground::new(volume);
        let mut pod = ground.pod(ONE, None);
        pod.load_all(1);
        std::thread::sleep(Duration::from_millis(20));
        fs::write(ground.volume.path("in/data"), noise(9000)).unwrap();
        match goes_on {
            true => {
                run(&pod.work, 0, 10, None).unwrap();
                assert_eq!(fs::read(ground.volume.path("out/part-000000")).unwrap(), &noise(8192)[..4096]);
            }
            false => assert_eq!(refused(run(&pod.work, 0, 10, None)).reason, "InputChanged"),
        }
        assert_eq!(refused(run(&pod.work, 1, 11, None)).reason, "InputChanged", "nobody has a copy");
        let told = pod.load(1, Vec::new(), true, String::new());
        assert_eq!(told.ended[0].trouble.as_ref().unwrap().reason, Trouble::CHANGED);
    }
}

#[test]
fn without_its_source_a_job_goes_on_from_blocks_and_fails_as_before_without() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, None);
    pod.load_all(1);
    fs::remove_file(ground.volume.path("in/data")).unwrap();
    run(&pod.work, 0, 10, None).unwrap();
    assert_eq!(refused(run(&pod.work, 1, 11, None)).reason, "NoInput");
    let told = pod.load(1, Vec::new(), true, String::new());
    assert_eq!(told.ended[0].trouble.as_ref().unwrap().reason, Trouble::UNREACHABLE);
    let told = pod.load(1, Vec::new(), false, String::new());
    assert_eq!(told.ended[0].trouble.as_ref().unwrap().reason, Trouble::NO_COPY);
}

#[test]
fn records_that_go_on_in_the_next_shard_are_read_from_blocks_alone() {
    let lines: String = (0..4000).map(|n: u32| format!("{n} {}\n", "x".repeat((n * 7 % 90) as usize))).collect();
    let mut volume = Volume::new(lines.as_bytes(), "4Ki");
    volume.spec["source"]["files"]["boundary"] = json!("Line");
    let ground = Ground::new(volume);
    let mut pod = ground.pod(ONE, None);
    let shards = pod.work.plan_in_force().unwrap().plan().shards();
    assert!(shards > 10);
    pod.load_all(shards);
    fs::remove_file(ground.volume.path("in/data")).unwrap();
    let mut output = Vec::new();
    for index in 0..shards {
        run(&pod.work, index, 10 + u64::from(index), None).unwrap();
        let part = fs::read(ground.volume.path(&format!("out/part-{index:06}"))).unwrap();
        assert!(part.is_empty() || part.ends_with(b"\n"));
        output.extend(part);
    }
    assert!(output == lines.as_bytes());
    assert_eq!(pod.read("source"), 0);
}

#[test]
fn what_a_process_left_is_told_by_the_next_and_goes_with_the_job() {
    let ground = two_shards();
    let mut pod = ground.pod(ONE, None);
    pod.load_all(2);
    let plan = pod.work.plan_in_force().unwrap();
    let (digest, shards) = (plan.plan().digest().to_owned(), plan.plan().shards());
    // Another run of the same plan is compared anew.
    pod.keeper.survey(&pod.work, "another");
    pod.work.use_plan(PlanRef { shards, digest: digest.clone() });
    let told = pod.news(|holdings| holdings.full);
    assert_eq!(told.groups.iter().map(|held| (held.group, held.good)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    let folder = pod.keeper.disk().folder().to_path_buf();
    pod.keeper.leave();
    // The process may end now.
    pod.keeper.left();
    assert!(!folder.exists(), "the blocks of a job that is over stay");
}
