//! No caller outside the crate can say that a request is boot's.

async fn pretend(core: &pipeline::Core, request: api::Request) {
    core.handle_as(request, None).await;
}

fn main() {}
