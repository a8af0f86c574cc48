//! Any text is an error or a configuration that builds or not: `cargo +nightly fuzz run config`.
#![no_main]

use gradus::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for read in [Config::from_toml, Config::from_json] {
        let Ok(config) = read(text) else { continue };
        if config.build::<f32>().is_ok() {
            let toml = config.to_toml().and_then(|text| Config::from_toml(&text));
            let json = config.to_json().and_then(|text| Config::from_json(&text));
            assert_eq!([toml.as_ref(), json.as_ref()], [Ok(&config); 2], "what builds can be written and read again");
        }
    }
});
