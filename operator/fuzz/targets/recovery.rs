//! Runs [`hyperflow_fuzz::recovery::notes`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::recovery::notes(bytes));
