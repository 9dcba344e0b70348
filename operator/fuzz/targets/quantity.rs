//! Runs [`hyperflow_fuzz::quantity::amount`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hyperflow_fuzz::quantity::amount(bytes));
