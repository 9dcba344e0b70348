//! Everything that parses bytes from elsewhere, tried with whatever may come.
//!
//! | what is read | file |
//! | --- | --- |
//! | what workers and operators say to each other | `wire.rs`, of values in `messages.rs` |
//! | the status that an earlier operator left | `status.rs`, by a coordinator that `desk.rs` drives |
//! | how large that status may become | `size.rs` |
//! | sets of shards | `ranges.rs` |
//! | plans, manifests, amounts of bytes, specs | `plan.rs`, `manifest.rs`, `quantity.rs`, `job.rs` |
//! | the inputs that are kept for the fuzz targets | `replay.rs` |
//!
//! What must hold of each parser is written once, in `operator/fuzz/src`: this program and the fuzzer share it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test program")]

#[path = "../../../fuzz/src/lib.rs"]
mod checks;
mod desk;
mod job;
mod manifest;
mod messages;
mod plan;
mod quantity;
mod ranges;
mod replay;
mod size;
mod status;
mod wire;
