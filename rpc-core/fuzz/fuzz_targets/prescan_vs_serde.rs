#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rpc_core::fuzz::prescan_vs_serde(input, |run| allocation_counter::measure(run).bytes_max);
});
