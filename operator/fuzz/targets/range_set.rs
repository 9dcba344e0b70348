//! Runs [`hyperflow_fuzz::ranges::set`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::ranges::set(bytes));
