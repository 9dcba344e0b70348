//! Runs [`hyperflow_fuzz::manifest::read`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::manifest::read(bytes));
