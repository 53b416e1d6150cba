//! Renders a template: never a panic, and text without a tag comes out as it went in.
#![no_main]

use dhow_fuzz::config::template;
use dhow_fuzz::world::Project;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let project = Project { base: b"", destination: b"" };
    let rendered = template::render(text, 0, &[], &project);
    if !text.contains("<%") && !text.contains('%') {
        let rendered = rendered.expect("text without tags is no template");
        assert_eq!(rendered.text, text);
    }
});
