//! Messages with anything in them: every variant, and numbers up to their ends.

use hyperflow_api::{
    ids::{Epoch, JobUid, MAX_SHARDS, Takeover, WorkerId},
    message::{
        Checkpoint, Fact, Failure, FailureClass, FromOperator, FromWorker, Grant, Held, Hello, News, Orders, PlanRef,
        Planned, Published, Report, Revoked, Target, Welcome,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

pub const CLASSES: [FailureClass; 10] = [
    FailureClass::Application,
    FailureClass::BadInput,
    FailureClass::Store,
    FailureClass::WorkerLost,
    FailureClass::OutOfMemory,
    FailureClass::Timeout,
    FailureClass::NodeLost,
    FailureClass::Evicted,
    FailureClass::Preempted,
    FailureClass::ImagePull,
];

pub fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Plan),
        Just(Target::Finally),
        Just(Target::Sweep),
        (0..MAX_SHARDS).prop_map(Target::Shard),
        Just(Target::Shard(MAX_SHARDS - 1)),
    ]
}

pub fn epoch() -> impl Strategy<Value = Epoch> {
    let epoch = |(term, random, sequence)| Epoch { takeover: Takeover { term, random }, sequence };
    any::<(u64, u64, u64)>().prop_map(epoch)
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    any::<(u64, u64, u64)>().prop_map(|(number, position, digest)| Checkpoint { number, position, digest })
}

fn held() -> impl Strategy<Value = Held> {
    (target(), epoch(), any::<u64>()).prop_map(|(target, epoch, position)| Held { target, epoch, position })
}

fn failure() -> impl Strategy<Value = Failure> {
    (select(&CLASSES[..]), "[A-Za-z][A-Za-z0-9]{0,63}", any::<(String, bool, bool, Option<i32>)>()).prop_map(
        |(class, reason, rest)| {
            let (message, ends_job, checkpoint_unusable, exit_code) = rest;
            Failure { class, reason, message, ends_job, checkpoint_unusable, exit_code }
        },
    )
}

fn news() -> impl Strategy<Value = News> {
    let published = |(bytes, crc32c, found)| News::Published(Published { bytes, crc32c, found });
    let planned = |(shards, (files, bytes, digest, url))| Planned { shards, files, bytes, digest, url };
    prop_oneof![
        checkpoint().prop_map(News::Checkpointed),
        any::<(u64, u32, bool)>().prop_map(published),
        (0..=MAX_SHARDS, any::<(u64, u64, String, String)>()).prop_map(planned).prop_map(News::Planned),
        Just(News::Finalized),
        Just(News::Swept(None)),
        failure().prop_map(News::Failed),
        Just(News::Released),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    (target(), epoch(), news()).prop_map(|(target, epoch, news)| Fact { target, epoch, news })
}

pub fn from_worker() -> impl Strategy<Value = FromWorker> {
    let hello = (any::<(u32, String, String, u64, u32, u64)>(), vec(held(), 0..4)).prop_map(|(parts, held)| {
        let (protocol, job, pod_uid, nonce, slots, heard) = parts;
        let worker = WorkerId { pod_uid, nonce };
        FromWorker::Hello(Hello { protocol, job: JobUid(job), worker, slots, held, heard, host: None })
    });
    let parts = (any::<(bool, u32, bool, u64)>(), vec(held(), 0..4), vec(fact(), 0..4));
    let report = parts.prop_map(|((beat, capacity, leaving, first_number), held, facts)| {
        FromWorker::Report(Report { beat, held, capacity, leaving, first_number, facts, holdings: None })
    });
    prop_oneof![hello, report]
}

fn grant() -> impl Strategy<Value = Grant> {
    let parts = (target(), epoch(), any::<(u32, bool)>(), option::of(epoch()), option::of(checkpoint()));
    parts.prop_map(|(target, epoch, (attempt, probe), replaces, resume)| Grant {
        target,
        epoch,
        attempt,
        replaces,
        probe,
        resume,
        heir_of: None,
    })
}

pub fn from_operator() -> impl Strategy<Value = FromOperator> {
    let welcome =
        any::<(u64, u64, String, u32, u32)>().prop_map(|(term, random, job, lease_millis, orphan_seconds)| {
            let takeover = Takeover { term, random };
            FromOperator::Welcome(Welcome { takeover, job, lease_millis, orphan_seconds })
        });
    let revoked = (target(), epoch()).prop_map(|(target, epoch)| Revoked { target, epoch });
    let plan = any::<(u32, String)>().prop_map(|(shards, digest)| PlanRef { shards, digest });
    let rest = any::<(Option<u64>, bool)>();
    let parts = (vec(grant(), 0..4), vec(revoked, 0..4), option::of(plan), rest);
    let orders = parts.prop_map(|(grants, revoked, plan, (acked_through, leave))| {
        FromOperator::Orders(Orders { grants, revoked, acked_through, plan, leave, blocks: Vec::new() })
    });
    prop_oneof![welcome, orders]
}
