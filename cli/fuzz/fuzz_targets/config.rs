//! Loads and compiles a config: never a panic, whatever the files are; problems can be printed in
//! every form. A line `%%` separates base and destination.
#![no_main]

use dhow_fuzz::config::{CompileInput, LoadOptions, load};
use dhow_fuzz::world::Project;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let split = data.windows(4).position(|window| window == b"\n%%\n");
    let (base, destination) = match split {
        Some(at) => (&data[..at + 1], &data[at + 4..]),
        None => (data, &data[..0]),
    };
    let project = Project { base, destination };
    let options = LoadOptions {
        config_file: None,
        destination: split.map(|_| "staging".to_owned()),
        version: Some("v1".to_owned()),
    };
    let problems = match load(&options, &project) {
        Ok(loaded) => {
            let _ = loaded.warnings.render_warnings(true);
            let _ = loaded.config.all_hosts();
            let version = loaded.version(&project).unwrap_or_default();
            match loaded.compile(&CompileInput { version: &version, outside: &project }) {
                Ok(compiled) => compiled.warnings,
                Err(problems) => {
                    assert!(!problems.is_empty(), "a refusal has a reason");
                    problems
                }
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            problems
        }
    };
    let _ = (problems.render(true), problems.to_json());
    if !problems.is_empty() {
        let _ = problems.kamal_error(true);
    }
});
