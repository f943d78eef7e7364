//! The words on the gates' socket: any bytes are refused, or are exactly what we would have written.
#![no_main]

use boot::gate::{Answer, Question};
use boot::plan::Probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = Answer::parse(bytes) {
        assert_eq!(answer.encode().as_bytes(), bytes);
    }
    if let Ok(question) = Question::parse(bytes) {
        assert_eq!(question.encode().as_bytes(), bytes);
    }
    if let Some(probe) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Probe>().ok()) {
        assert_eq!(probe.to_string().parse::<Probe>().as_ref(), Ok(&probe));
    }
});
