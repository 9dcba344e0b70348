//! Messages with anything in them: every variant, and numbers up to their ends.

use hyperflow_api::{
    ids::{Epoch, JobUid, MAX_SHARDS, Takeover, WorkerId},
    message::{
        Checkpoint, Fact, Failure, FailureClass, FromOperator, FromWorker, Grant, Held, Hello, News, Orders, PlanRef,
        Planned, Published, Report, Revoked, Target, Welcome,
    },
    replica::{BlockOrder, Dropped, GroupHeld, Holdings, Host, LoadEnd, Peer, Trouble},
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

fn host() -> impl Strategy<Value = Host> {
    let parts = ("[a-f0-9-]{1,36}", "[0-9.:]{0,20}", any::<(Vec<u8>, bool, u64)>());
    parts.prop_map(|(store, address, (public_key, persistent, capacity))| Host {
        store,
        address,
        public_key,
        persistent,
        capacity,
    })
}

fn holdings() -> impl Strategy<Value = Holdings> {
    let group = (0..MAX_SHARDS, any::<(u32, u32, u32, u32, u64, u64)>()).prop_map(|(group, parts)| {
        let (blocks, good, stale, corrupt, digest, bytes) = parts;
        GroupHeld { group, blocks, good, stale, corrupt, digest, bytes }
    });
    let trouble = ("[A-Za-z]{1,20}", "\\PC{0,20}").prop_map(|(reason, message)| Trouble { reason, message });
    let end = (0..MAX_SHARDS, any::<(u64, u64, u64)>(), option::of(trouble));
    let end = end.prop_map(|(group, (order, from_peers, from_source), trouble)| LoadEnd {
        group,
        order,
        from_peers,
        from_source,
        trouble,
    });
    let parts = ("[a-z0-9:]{0,40}", any::<(bool, u64)>(), vec(group, 0..3), vec(end, 0..3));
    parts.prop_map(|(plan, (full, free), groups, ended)| Holdings { plan, full, free, groups, ended })
}

fn block_order() -> impl Strategy<Value = BlockOrder> {
    let peer = any::<(String, String)>().prop_map(|(pod, address)| Peer { pod, address });
    let parts = (0..MAX_SHARDS, vec(peer, 0..3), any::<(u64, bool, String, u8)>());
    parts.prop_map(|(group, from, (order, source, grant, kind))| match kind % 4 {
        0 => BlockOrder::Load { group, order, from, source, grant },
        1 => BlockOrder::Access { group, from, grant },
        2 => BlockOrder::Drop { group, what: Dropped::Surplus },
        _ => BlockOrder::Drop { group, what: Dropped::Outdated },
    })
}

pub fn from_worker() -> impl Strategy<Value = FromWorker> {
    let parts = any::<(u32, String, String, u64, u32, u64)>();
    let hello = (parts, vec(held(), 0..4), option::of(host())).prop_map(|(parts, held, host)| {
        let (protocol, job, pod_uid, nonce, slots, heard) = parts;
        let worker = WorkerId { pod_uid, nonce };
        FromWorker::Hello(Hello { protocol, job: JobUid(job), worker, slots, held, heard, host })
    });
    let parts = (any::<(bool, u32, bool, u64)>(), vec(held(), 0..4), vec(fact(), 0..4), option::of(holdings()));
    let report = parts.prop_map(|((beat, capacity, leaving, first_number), held, facts, holdings)| {
        FromWorker::Report(Report { beat, held, capacity, leaving, first_number, facts, holdings })
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
    let parts = (vec(grant(), 0..4), vec(revoked, 0..4), option::of(plan), rest, vec(block_order(), 0..3));
    let orders = parts.prop_map(|(grants, revoked, plan, (acked_through, leave), blocks)| {
        FromOperator::Orders(Orders { grants, revoked, acked_through, plan, leave, blocks })
    });
    prop_oneof![welcome, orders]
}
