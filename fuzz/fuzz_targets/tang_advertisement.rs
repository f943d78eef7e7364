//! A Tang server's advertisement: any bytes are refused, for no stranger has the pinned key. What stands in a slot is
//! read too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tang::{Advertisement, Binding, Thumbprint};

fuzz_target!(|bytes: &[u8]| {
    // Nobody can sign for this key: what is accepted would be forged.
    assert!(Advertisement::verify(bytes, &Thumbprint([7; 32])).is_err());
    let pinned = "CkTwSVc4CShhzer38XzixzG9DZ0VNFW-aK6GlcP0CHc".parse().expect("a thumbprint");
    let _ = Advertisement::verify(bytes, &pinned);
    if let Ok(binding) = Binding::from_bytes(bytes) {
        assert_eq!(binding.to_bytes(), bytes);
    }
});
