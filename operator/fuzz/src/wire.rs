//! The wire: what is understood says all that was sent, and what is refused is refused for a true reason.

use hyperflow_api::{
    ids::MAX_SHARDS,
    message::{FromOperator, FromWorker, News, Target},
    wire::{WireError, proto},
};
use prost::Message;

/// Bytes from a worker.
pub fn from_worker(bytes: &[u8]) {
    let Ok(sent) = proto::FromWorker::decode(bytes) else { return };
    let understood = match FromWorker::try_from(sent.clone()) {
        Ok(understood) => understood,
        Err(error) => return refused_rightly(&error),
    };
    let targets: Vec<Target> = match &understood {
        FromWorker::Hello(hello) => hello.held.iter().map(|held| held.target).collect(),
        FromWorker::Report(report) => {
            report.facts.iter().for_each(|fact| planned_possible(&fact.news));
            let held = report.held.iter().map(|held| held.target);
            held.chain(report.facts.iter().map(|fact| fact.target)).collect()
        }
    };
    targets.into_iter().for_each(possible);
    let again = proto::FromWorker::from(understood.clone());
    assert_eq!(again, sent, "something of it was lost");
    let again = proto::FromWorker::decode(&again.encode_to_vec()[..]).expect("what we write is read");
    assert_eq!(FromWorker::try_from(again), Ok(understood));
}

/// Bytes from an operator.
pub fn from_operator(bytes: &[u8]) {
    let Ok(sent) = proto::FromOperator::decode(bytes) else { return };
    use proto::from_operator::Message as Sent;
    let credential = matches!(sent.message, Some(Sent::Credential(_) | Sent::Passport(_)));
    let understood = match FromOperator::try_from(sent.clone()) {
        Ok(understood) => understood,
        Err(WireError::Credential) if credential => return,
        Err(error) => return refused_rightly(&error),
    };
    if let FromOperator::Orders(orders) = &understood {
        assert!(orders.blocks.iter().all(|order| order.group() < MAX_SHARDS), "a group that no job has");
        let granted = orders.grants.iter().map(|grant| grant.target);
        granted.chain(orders.revoked.iter().map(|revoked| revoked.target)).for_each(possible);
    }
    let again = proto::FromOperator::from(understood.clone());
    assert_eq!(again, sent, "something of it was lost");
    let again = proto::FromOperator::decode(&again.encode_to_vec()[..]).expect("what we write is read");
    assert_eq!(FromOperator::try_from(again), Ok(understood));
}

fn possible(target: Target) {
    if let Target::Shard(index) = target {
        assert!(index < MAX_SHARDS, "shard {index} was let through");
    }
}

fn planned_possible(news: &News) {
    if let News::Planned(planned) = news {
        assert!(planned.shards <= MAX_SHARDS, "a plan of {} shards was let through", planned.shards);
    }
}

/// The error says what is wrong, and that is wrong indeed.
pub fn refused_rightly(error: &WireError) {
    match error {
        WireError::Missing(part) => {
            let parts = ["content", "target", "epoch", "news", "an order about blocks", "the store's UUID"];
            assert!(parts.contains(part), "{part}");
        }
        // The number of shards of a plan may be the bound itself.
        WireError::Shard(number) => assert!(*number >= MAX_SHARDS, "shard {number} was refused"),
        WireError::Class(class) => assert!(!(1..=10).contains(class), "class {class} was refused"),
        // What of the text is wrong is tried where it is known.
        WireError::TooLong(..) | WireError::Reason => {}
        WireError::Credential => panic!("no credential was sent"),
    }
    assert!(!error.to_string().is_empty());
}
