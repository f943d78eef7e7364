//! An engine is reached with an authorised request alone.

fn reach(engine: &dyn pipeline::Engine, request: &api::Request, txn: &mut pipeline::Txn) {
    drop(engine.handle(request, txn));
}

fn main() {}
