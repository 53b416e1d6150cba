//! Reads a secrets file: never a panic, never more than the limits, and what is escaped for a shell
//! is one word again.
#![no_main]

use dhow_fuzz::dotenv::{MAX_TOTAL, MAX_VALUE, decode, parse};
use dhow_fuzz::words;
use dhow_fuzz::world::Echo;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = decode(data) else { return };
    let Ok(pairs) = parse(text, &mut Echo::default()) else { return };
    let mut total = 0;
    for (name, value) in pairs.into_values() {
        assert!(!name.is_empty(), "every value has a name");
        let value = value.expose_secret();
        assert!(value.len() <= MAX_VALUE.max(text.len()), "values are bounded");
        total += value.len();
        if !value.contains('\0') {
            assert_eq!(words::split(&words::escape(value)).as_deref(), Ok(&[value.to_owned()][..]));
        }
        let _ = words::split(value);
    }
    assert!(total <= MAX_TOTAL, "all values together are bounded");
});
