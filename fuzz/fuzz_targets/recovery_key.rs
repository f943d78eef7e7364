//! The text of a recovery key: any text is read or refused, and a key has one text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seal::RecoveryKey;

fuzz_target!(|text: &str| {
    for typed in [text.to_owned(), format!("ekr1-{text}")] {
        if let Ok(key) = RecoveryKey::parse(&typed) {
            let again = RecoveryKey::parse(&key.format()).expect("a key reads its own text");
            assert_eq!(again.name(), key.name());
        }
    }
});
