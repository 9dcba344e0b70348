//! What a worker proves itself with when it calls, and how it says goodbye: a whole process, call by call.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use hyperflow_api::{
    message::{Fact, FromOperator, FromWorker, Grant, News, Orders, PlanRef, Report, Target},
    wire::proto::{self as p, sessions_server::Sessions},
};
use hyperflow_core::job::Brief;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    process::{Signal, getpid, kill_process},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    MIB, Volume, epoch, noise, plan,
    running::{noop, welcome},
    speaking::{ALONE, Answers, operate, process},
};

const SOON: Duration = Duration::from_secs(5);

/// Hands each call to the test.
struct Exchange(mpsc::Sender<Call>);

struct Call {
    proof: String,
    said: Streaming<p::FromWorker>,
    answer: oneshot::Sender<Result<Answers, Status>>,
}

/// An open session.
struct Line {
    said: Streaming<p::FromWorker>,
    answers: mpsc::Sender<Result<p::FromOperator, Status>>,
}

#[tonic::async_trait]
impl Sessions for Exchange {
    type OpenStream = Answers;

    async fn open(&self, request: Request<Streaming<p::FromWorker>>) -> Result<Response<Answers>, Status> {
        let proof = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (answer, answered) = oneshot::channel();
        self.0.send(Call { proof, said: request.into_inner(), answer }).await.unwrap();
        answered.await.unwrap().map(Response::new)
    }
}

impl Call {
    fn refuse(self, why: Status) {
        self.answer.send(Err(why)).ok().unwrap();
    }

    async fn welcome(self, brief: &Brief) -> Line {
        let Self { mut said, answer, .. } = self;
        let (answers, stream) = mpsc::channel(16);
        answer.send(Ok(Box::pin(ReceiverStream::new(stream)))).ok().unwrap();
        let hello = said.message().await.unwrap().unwrap().try_into().unwrap();
        assert!(matches!(hello, FromWorker::Hello(_)));
        let line = Line { said, answers };
        line.say(FromOperator::Welcome(welcome(brief)).into()).await;
        line
    }
}

impl Line {
    async fn say(&self, message: p::FromOperator) {
        self.answers.send(Ok(message)).await.unwrap();
    }

    async fn order(&self, orders: Orders) {
        self.say(FromOperator::Orders(orders).into()).await;
    }

    async fn report(&mut self) -> Option<Report> {
        match FromWorker::try_from(self.said.message().await.ok()??).unwrap() {
            FromWorker::Report(report) => Some(report),
            FromWorker::Hello(_) => panic!("a second hello"),
        }
    }
}

/// A process, and the calls it makes. It ends with the test.
struct Running {
    calls: mpsc::Receiver<Call>,
    ended: JoinHandle<&'static str>,
}

async fn run(folder: &Path, brief: &Brief) -> Running {
    let (calls, called) = mpsc::channel(1);
    let address = operate(folder, Exchange(calls)).await;
    Running { calls: called, ended: tokio::spawn(process(folder, address, &brief.uid).run()) }
}

impl Running {
    async fn call(&mut self) -> Call {
        timeout(SOON, self.calls.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

fn credential(text: &str, seconds: u32) -> p::FromOperator {
    let credential = p::Credential { text: text.into(), seconds };
    p::FromOperator { message: Some(p::from_operator::Message::Credential(credential)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_shows_its_credential_and_when_that_is_refused_its_token_at_once() {
    let _alone = ALONE.lock().await;
    let (folder, brief) = (tempfile::tempdir().unwrap(), noop());
    let mut running = run(folder.path(), &brief).await;
    let call = running.call().await;
    assert_eq!(call.proof, "Bearer the-token");
    let mut line = call.welcome(&brief).await;
    line.say(credential("1.aa", 3600)).await;
    line.order(Orders::default()).await;
    assert!(line.report().await.is_some(), "a credential does not disturb the session");
    line.say(credential("2.bb", 3600)).await;
    drop(line);

    // A follower says nothing about a credential: it is shown to the next.
    for _ in 0..2 {
        let call = running.call().await;
        assert_eq!(call.proof, "Hyperflow 2.bb");
        call.refuse(Status::unavailable("not leader"));
    }
    let call = running.call().await;
    assert_eq!(call.proof, "Hyperflow 2.bb");
    let refused = Instant::now();
    call.refuse(Status::unauthenticated("the credential has expired"));
    let call = running.call().await;
    assert_eq!(call.proof, "Bearer the-token");
    assert!(refused.elapsed() < Duration::from_millis(100), "{:?}", refused.elapsed());

    // A token that is refused is tried again after the usual wait, and nothing else is shown.
    call.refuse(Status::unauthenticated("the token is not valid"));
    let call = running.call().await;
    assert_eq!(call.proof, "Bearer the-token");
    let line = call.welcome(&brief).await;
    line.say(credential("3.cc", 0)).await;
    drop(line);
    assert_eq!(running.call().await.proof, "Bearer the-token", "the credential has ended");
}

/// Runs shard 0 of a volume's job until it has begun, asks the process to terminate, and returns what it said from then
/// on.
async fn terminate(volume: &Volume, planned: PlanRef, mut begun: impl FnMut() -> bool) -> Vec<Fact> {
    let (folder, brief) = (tempfile::tempdir().unwrap(), volume.brief());
    let mut running = run(folder.path(), &brief).await;
    let mut line = running.call().await.welcome(&brief).await;
    let grant = Grant {
        target: Target::Shard(0),
        epoch: epoch(9),
        attempt: 1,
        replaces: None,
        probe: false,
        resume: None,
        heir_of: None,
    };
    line.order(Orders { plan: Some(planned), grants: vec![grant], ..Orders::default() }).await;
    let waiting = async {
        while !begun() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();

    let asked = Instant::now();
    kill_process(getpid(), Signal::TERM).unwrap();
    let (mut facts, mut left) = (Vec::new(), false);
    while let Some(report) = timeout(SOON, line.report()).await.unwrap() {
        left |= report.leaving;
        if !report.facts.is_empty() {
            let acked_through = Some(report.first_number + report.facts.len() as u64 - 1);
            line.order(Orders { acked_through, ..Orders::default() }).await;
        }
        facts.extend(report.facts);
    }
    drop(line);
    let reason = timeout(SOON, &mut running.ended).await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((reason, left), ("asked to terminate", true));
    facts
}

fn planned(volume: &Volume) -> PlanRef {
    let planned = plan(&volume.work(1)).unwrap();
    PlanRef { shards: planned.shards, digest: planned.digest }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_copy_leaves_a_checkpoint_and_hands_its_lease_back_in_time() {
    let _alone = ALONE.lock().await;
    let mut volume = Volume::new(&noise(MIB), "1Mi");
    // One buffer of 4 KiB, read and written, takes a second.
    volume.spec["workers"]["bytesPerSecond"] = json!("8Ki");
    let planned = planned(&volume);
    let begun = || {
        let segments = fs::read_dir(volume.own("stage/0")).into_iter().flatten();
        segments.flatten().any(|segment| segment.metadata().unwrap().len() == 4096)
    };
    let facts = terminate(&volume, planned, begun).await;
    let [Fact { news: News::Checkpointed(checkpoint), .. }, Fact { news: News::Released, .. }] = &facts[..] else {
        panic!("{facts:?}")
    };
    assert_eq!(checkpoint.position, 4096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_not_wait_for_a_store_that_hangs() {
    let _alone = ALONE.lock().await;
    let volume = Volume::new(&noise(MIB), "1Mi");
    let planned = planned(&volume);
    let claims = volume.path("out/_hyperflow/claims");
    let file = claims.join(&super::names(&claims)[0]);
    fs::remove_file(&file).unwrap();
    // Who opens it waits for a writer, as it would for a disk.
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut writer = None;
    let begun = || {
        // Can be opened only once somebody reads. What is read is never written.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        writer = fs::OpenOptions::new().write(true).custom_flags(flags).open(&file).ok();
        writer.is_some()
    };
    assert_eq!(terminate(&volume, planned, begun).await, [], "its end is not known");
    drop(writer);
}
