#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| balancer_fuzz_checks::request(data));
