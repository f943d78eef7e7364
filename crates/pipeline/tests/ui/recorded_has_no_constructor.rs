//! A reply that the audit has not got cannot be sent.

fn forge(reply: api::Reply) -> pipeline::Recorded {
    pipeline::Recorded::from(reply)
}

fn main() {}
