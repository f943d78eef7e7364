//! EdgeX's resp-init.json: any bytes give shares or an error, and what is written is read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seal::edgex::Shares;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Shares::Wrapped(wrapped)) = Shares::parse(bytes) {
        let text = wrapped.encode();
        match Shares::parse(&text) {
            Ok(Shares::Wrapped(again)) => assert_eq!(again.encode(), text),
            other => panic!("{other:?}"),
        }
    }
});
