//! The wire: what is said arrives, and nothing else is understood.

use hyperflow_api::{
    ids::{Epoch, MAX_SHARDS},
    message::{Failure, FromOperator, FromWorker},
    wire::{WireError, proto as p},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::{
    checks::wire,
    messages::{epoch, from_operator, from_worker},
};

/// Targets as nobody of ours sends them: empty, absent, or beyond every plan.
fn target() -> impl Strategy<Value = Option<p::Target>> {
    let of = prop_oneof![
        any::<u32>().prop_map(p::target::Of::Shard),
        (MAX_SHARDS - 2..=MAX_SHARDS + 1).prop_map(p::target::Of::Shard),
        Just(p::target::Of::Plan(p::Nothing {})),
        Just(p::target::Of::Sweep(p::Nothing {})),
    ];
    option::weighted(0.9, option::weighted(0.9, of).prop_map(|of| p::Target { of }))
}

fn some_epoch() -> impl Strategy<Value = Option<p::Epoch>> {
    option::weighted(0.9, epoch().prop_map(Into::into))
}

fn news() -> impl Strategy<Value = Option<p::fact::News>> {
    let failure = |(class, ends_job)| p::Failure { class, ends_job, ..p::Failure::default() };
    let planned = |shards| p::Planned { shards, ..p::Planned::default() };
    let news = prop_oneof![
        (-1..12_i32, any::<bool>()).prop_map(failure).prop_map(p::fact::News::Failed),
        any::<i32>().prop_map(move |class| p::fact::News::Failed(failure((class, false)))),
        any::<u32>().prop_map(planned).prop_map(p::fact::News::Planned),
        (MAX_SHARDS - 1..=MAX_SHARDS + 1).prop_map(planned).prop_map(p::fact::News::Planned),
        Just(p::fact::News::Swept(p::Swept::default())),
    ];
    option::weighted(0.9, news)
}

fn strange_report() -> impl Strategy<Value = p::FromWorker> {
    let held = (target(), some_epoch(), any::<u64>());
    let held = held.prop_map(|(target, epoch, position)| p::Held { target, epoch, position });
    let fact = (target(), some_epoch(), news()).prop_map(|(target, epoch, news)| p::Fact { target, epoch, news });
    let report = (vec(held, 0..3), vec(fact, 0..3));
    report.prop_map(|(held, facts)| p::FromWorker {
        message: Some(p::from_worker::Message::Report(p::Report { held, facts, ..p::Report::default() })),
    })
}

fn strange_orders() -> impl Strategy<Value = p::FromOperator> {
    let grant = (target(), some_epoch(), some_epoch());
    let grant = grant.prop_map(|(target, epoch, replaces)| p::Grant { target, epoch, replaces, ..p::Grant::default() });
    let revoked = (target(), some_epoch()).prop_map(|(target, epoch)| p::Revoked { target, epoch });
    let orders = (vec(grant, 0..3), vec(revoked, 0..3));
    orders.prop_map(|(grants, revoked)| p::FromOperator {
        message: Some(p::from_operator::Message::Orders(p::Orders { grants, revoked, ..p::Orders::default() })),
    })
}

/// Bytes that were a message once: some are others now, and some are missing.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = bytes.len();
    (vec((0..length.max(1), any::<u8>()), 1..4), 0..=length).prop_map(move |(changes, cut)| {
        let mut bytes = bytes.clone();
        for (place, byte) in changes.into_iter().filter(|(place, _)| *place < length) {
            bytes[place] = byte;
        }
        bytes.truncate(cut.max(length / 2));
        bytes
    })
}

proptest! {
    #[test]
    fn what_a_worker_says_arrives(said in from_worker()) {
        let bytes = p::FromWorker::from(said.clone()).encode_to_vec();
        let heard = FromWorker::try_from(p::FromWorker::decode(&bytes[..]).unwrap());
        prop_assert_eq!(heard, Ok(said));
        wire::from_worker(&bytes);
    }

    #[test]
    fn what_an_operator_says_arrives(said in from_operator()) {
        let bytes = p::FromOperator::from(said.clone()).encode_to_vec();
        let heard = FromOperator::try_from(p::FromOperator::decode(&bytes[..]).unwrap());
        prop_assert_eq!(heard, Ok(said));
        wire::from_operator(&bytes);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        wire::from_worker(&bytes);
        wire::from_operator(&bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_another_sound_one(
        worker in from_worker().prop_flat_map(|said| damaged(p::FromWorker::from(said).encode_to_vec())),
        operator in from_operator().prop_flat_map(|said| damaged(p::FromOperator::from(said).encode_to_vec())),
    ) {
        wire::from_worker(&worker);
        wire::from_operator(&operator);
    }

    #[test]
    fn a_strange_message_is_refused_for_a_true_reason(report in strange_report(), orders in strange_orders()) {
        wire::from_worker(&report.encode_to_vec());
        wire::from_operator(&orders.encode_to_vec());
        // The other way about it is no message at all, or an empty one.
        wire::from_operator(&report.encode_to_vec());
        wire::from_worker(&orders.encode_to_vec());
    }

    #[test]
    fn a_reason_that_no_condition_may_have_is_refused(reason in "[A-Za-z]{0,10}[^A-Za-z0-9][A-Za-z]{0,10}|[0-9][a-z]{0,9}|[a-z]{65,80}|") {
        let failure = p::Failure { class: 1, reason, ..p::Failure::default() };
        prop_assert_eq!(Failure::try_from(failure), Err(WireError::Reason));
    }

    #[test]
    fn a_shard_beyond_every_plan_is_refused_wherever_it_stands(index in MAX_SHARDS..) {
        let target = Some(p::Target { of: Some(p::target::Of::Shard(index)) });
        let epoch = Some(p::Epoch::default());
        let refused = WireError::Shard(index);
        let held = vec![p::Held { target, epoch, position: 0 }];
        let swept = Some(p::fact::News::Swept(p::Swept::default()));
        let facts = vec![p::Fact { target, epoch, news: swept }];
        for message in [
            p::from_worker::Message::Hello(p::Hello { held: held.clone(), ..p::Hello::default() }),
            p::from_worker::Message::Report(p::Report { held, ..p::Report::default() }),
            p::from_worker::Message::Report(p::Report { facts, ..p::Report::default() }),
        ] {
            prop_assert_eq!(FromWorker::try_from(p::FromWorker { message: Some(message) }), Err(refused.clone()));
        }
        let grants = vec![p::Grant { target, epoch, ..p::Grant::default() }];
        let revoked = vec![p::Revoked { target, epoch }];
        for orders in [p::Orders { grants, ..p::Orders::default() }, p::Orders { revoked, ..p::Orders::default() }] {
            let message = Some(p::from_operator::Message::Orders(orders));
            prop_assert_eq!(FromOperator::try_from(p::FromOperator { message }), Err(refused.clone()));
        }
    }

    #[test]
    fn an_epoch_is_read_back_from_its_text(epoch in epoch(), text in "[0-9a-f.+-]{0,24}") {
        prop_assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        if let Ok(read) = text.parse::<Epoch>() {
            prop_assert_eq!(read.to_string().parse::<Epoch>().unwrap(), read);
        }
    }
}
