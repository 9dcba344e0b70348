//! Runs [`hyperflow_fuzz::plan::read`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::plan::read(bytes));
