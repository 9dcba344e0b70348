//! Runs [`hyperflow_fuzz::status::left`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::status::left(bytes));
