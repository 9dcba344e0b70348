//! Runs [`hyperflow_fuzz::job::spec`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::job::spec(bytes));
