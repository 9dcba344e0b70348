//! Runs [`hyperflow_fuzz::wire::from_worker`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::wire::from_worker(bytes));
