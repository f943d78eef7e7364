//! What every channel must do, as one body of tests.

use crate::parcel::sample;
use crate::{Channel, Recipient, Standing};

/// Runs the contract on an empty channel with two recipients.
pub(crate) fn channel(channel: &dyn Channel, recipients: &[Recipient; 2]) {
    let [a, b] = recipients;
    channel.withdraw(a).unwrap();

    let first = channel.deliver(a, &sample("s.first")).unwrap();
    assert_eq!(channel.verify(a, &first).unwrap(), Standing::Intact);
    assert_ne!(channel.verify(b, &first).unwrap(), Standing::Intact, "a delivery belongs to one recipient");

    let second = channel.deliver(a, &sample("s.second")).unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(channel.verify(a, &second).unwrap(), Standing::Intact, "delivering again replaces");
    assert!(matches!(channel.verify(a, &first).unwrap(), Standing::Changed { .. }));

    let before = sample("s.second");
    assert!(!channel.keep_ca(a, before.ca_pem()).unwrap(), "it lies there");
    assert!(channel.keep_ca(a, b"another").unwrap(), "another CA's is replaced");
    assert!(!channel.keep_ca(a, b"another").unwrap());
    assert_eq!(channel.verify(a, &second).unwrap(), Standing::Intact, "the token beside it stays");

    let other = channel.deliver(b, &sample("s.other")).unwrap();
    channel.withdraw(a).unwrap();
    assert_eq!(channel.verify(a, &second).unwrap(), Standing::Missing);
    assert_eq!(channel.verify(b, &other).unwrap(), Standing::Intact, "withdrawing from one leaves the other");
    channel.withdraw(a).unwrap();
}
