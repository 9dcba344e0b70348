//! What must hold of every parser of foreign bytes, whatever comes in.
//!
//! | what is read | target | file |
//! | --- | --- | --- |
//! | what a worker says, what an operator says | `wire_from_worker`, `wire_from_operator` | `wire.rs` |
//! | the status that an earlier operator left | `status_left` | `status.rs` |
//! | its notes of shards that are leased or wait | `recovery` | `recovery.rs` |
//! | sets of shards | `range_set` | `ranges.rs` |
//! | a checkpoint's manifest | `manifest` | `manifest.rs` |
//! | a stored plan | `plan` | `plan.rs` |
//! | amounts of bytes | `quantity` | `quantity.rs` |
//! | a spec | `job_spec` | `job.rs` |
//!
//! Each is a function of bytes that panics when something does not hold. Two programs call them: the fuzzer
//! (`make fuzz`), and `operator/core/tests/properties`, which includes this file, so that every committed input is tried
//! again by `cargo test`. Bytes are taken as they are, so a file in `artifacts/` is what a worker or a store could send.

pub mod job;
pub mod manifest;
pub mod plan;
pub mod quantity;
pub mod ranges;
pub mod recovery;
pub mod status;
pub mod wire;

/// One check.
pub type Check = fn(&[u8]);

/// Every check, by the name of its target and of its folders of inputs.
pub const CHECKS: [(&str, Check); 9] = [
    ("wire_from_worker", wire::from_worker),
    ("wire_from_operator", wire::from_operator),
    ("status_left", status::left),
    ("recovery", recovery::notes),
    ("range_set", ranges::set),
    ("manifest", manifest::read),
    ("plan", plan::read),
    ("quantity", quantity::amount),
    ("job_spec", job::spec),
];
